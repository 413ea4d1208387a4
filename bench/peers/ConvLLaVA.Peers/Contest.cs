using System.Diagnostics;
using ConvLLaVA.Engine.Instruments;

namespace ConvLLaVA.Peers;

/// <summary>One of several programs that do the same work.</summary>
/// <param name="Name">Who.</param>
/// <param name="Class">Precision of the weights.</param>
/// <param name="Run">Does the work once and says how long each part took, in milliseconds; every run gives the same parts.</param>
internal sealed record Contestant(string Name, string Class, Func<double[]> Run);

/// <summary>Runs contestants in turn, so that whatever slows the machine down for a while slows all of them.</summary>
internal static class Contest
{
    /// <summary>Threads of the last contestant spin for a moment before they sleep; the next one must not share the cores with them.</summary>
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(300);

    /// <summary>Warms every contestant up once, then runs each <paramref name="rounds"/> times, every round in another order.</summary>
    /// <returns>For each contestant its parts' times.</returns>
    public static IReadOnlyList<Timing[]> Hold(IReadOnlyList<Contestant> contestants, int rounds, Action<string> say)
    {
        List<double>[][] times = new List<double>[contestants.Count][];
        for (int c = 0; c < contestants.Count; c++)
        {
            say($"  warm-up: {contestants[c].Name} ({contestants[c].Class})");
            times[c] = [.. contestants[c].Run().Select(_ => new List<double>())];
        }
        for (int round = 0; round < rounds; round++)
        {
            for (int i = 0; i < contestants.Count; i++)
            {
                int c = round % 2 == 0 ? i : contestants.Count - 1 - i;
                GC.Collect();
                Thread.Sleep(Pause);
                double[] parts = contestants[c].Run();
                for (int part = 0; part < parts.Length; part++) times[c][part].Add(parts[part]);
                say($"  round {round + 1}: {contestants[c].Name} ({contestants[c].Class}) {string.Join(" + ", parts.Select(ms => $"{ms:F1}"))} ms");
            }
        }
        return [.. times.Select(parts => parts.Select(Timing.Of).ToArray())];
    }

    /// <summary>Milliseconds that <paramref name="work"/> takes.</summary>
    public static double Time(Action work)
    {
        long started = Stopwatch.GetTimestamp();
        work();
        return Stopwatch.GetElapsedTime(started).TotalMilliseconds;
    }

    /// <summary>Relative L2 distance.</summary>
    public static double Distance(ReadOnlySpan<float> found, ReadOnlySpan<float> expected)
    {
        if (found.Length != expected.Length) throw new InvalidOperationException($"{found.Length} values are compared with {expected.Length}.");
        double difference = 0, norm = 0;
        for (int i = 0; i < found.Length; i++)
        {
            difference += ((double)found[i] - expected[i]) * ((double)found[i] - expected[i]);
            norm += (double)expected[i] * expected[i];
        }
        return Math.Sqrt(difference / norm);
    }
}
