using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>What a self-test found about one operation at one shape.</summary>
/// <param name="Name">The operation.</param>
/// <param name="Shape">Its shape.</param>
/// <param name="Error">Relative L2 distance from the reference over all compared elements; infinite when one is not a number.</param>
/// <param name="Worst">Largest difference over the root mean square of the reference.</param>
/// <param name="Tolerance">What <paramref name="Error"/> may be; <paramref name="Worst"/> may be forty times that.</param>
/// <param name="Compared">Elements compared.</param>
/// <param name="Passed">Whether both are within.</param>
/// <param name="Milliseconds">Time on the device, reading back included.</param>
/// <param name="Failure">What the operation threw, or null.</param>
public sealed record SelftestCheck(string Name, string Shape, double Error, double Worst, double Tolerance, long Compared, bool Passed, double Milliseconds, string? Failure = null);

/// <summary>An operation at a shape: how to run it and what should come out.</summary>
/// <param name="Name">The operation.</param>
/// <param name="Shape">Its shape, for people.</param>
/// <param name="Execute">Runs it and gives its output.</param>
/// <param name="Compare">Compares the output, row-major, with the reference. [rows, columns]</param>
internal sealed record SelftestCase(string Name, string Shape, Func<IBackend, Workspace, Tensor> Execute, Action<float[], Comparison> Compare);

/// <summary>Sums up differences. Rows may be compared from several threads.</summary>
internal sealed class Comparison
{
    private readonly Lock _gate = new();
    private double _difference;
    private double _size;
    private double _largest;
    private long _count;
    private bool _broken;

    /// <summary>Elements compared.</summary>
    public long Count => _count;

    /// <summary>Relative L2 distance.</summary>
    public double Error => _broken ? double.PositiveInfinity : _size > 0 ? Math.Sqrt(_difference / _size) : Math.Sqrt(_difference);

    /// <summary>Largest difference over the reference's root mean square.</summary>
    public double Worst => _broken ? double.PositiveInfinity : _count == 0 ? 0 : _largest / Math.Max(1e-30, Math.Sqrt(_size / _count));

    /// <summary>Compares a stretch.</summary>
    public void Add(ReadOnlySpan<float> actual, ReadOnlySpan<double> expected)
    {
        double difference = 0, size = 0, largest = 0;
        bool broken = actual.Length != expected.Length;
        for (int i = 0; i < Math.Min(actual.Length, expected.Length); i++)
        {
            double d = Math.Abs(actual[i] - expected[i]);
            broken |= !double.IsFinite(d);
            difference += d * d;
            size += expected[i] * expected[i];
            largest = Math.Max(largest, d);
        }
        lock (_gate)
        {
            _difference += difference;
            _size += size;
            _largest = Math.Max(_largest, largest);
            _count += actual.Length;
            _broken |= broken;
        }
    }

    /// <summary>Compares one element.</summary>
    public void Add(float actual, double expected) => Add([actual], [expected]);
}

/// <summary>Chooses what to compare when a whole result would take too long: every row is touched while the budget lasts, in different columns.</summary>
internal static class Samples
{
    /// <summary>Up to <paramref name="most"/> of <paramref name="count"/> numbers: the first, the last and others in between, in order.</summary>
    public static int[] Of(int count, int most, ulong seed)
    {
        if (count <= most) return [.. Enumerable.Range(0, count)];
        var random = new Random((int)(seed ^ (seed >> 32)));
        var chosen = new SortedSet<int> { 0, count - 1 };
        // One out of each stretch, so that no tile of a kernel is left out.
        for (int i = 0; i < most; i++)
        {
            long begin = (long)i * count / most, end = (long)(i + 1) * count / most;
            chosen.Add((int)random.NextInt64(begin, end));
        }
        return [.. chosen];
    }
}
