using System.Diagnostics;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>Times work on a device.</summary>
internal interface IDeviceTimer : IDisposable
{
    /// <summary>Overwrites the last-level cache, so that the next operation finds nothing of its own there.</summary>
    void FlushCache();

    /// <summary>Milliseconds that the device takes for what <paramref name="work"/> gives it.</summary>
    double Time(Action work);
}

/// <summary>The processor's timer: work is done when the call returns.</summary>
internal sealed class StopwatchTimer : IDeviceTimer
{
    private readonly byte[] _other = GC.AllocateUninitializedArray<byte>(64 << 20);
    private byte _value;

    public void FlushCache() => _other.AsSpan().Fill(++_value);

    public double Time(Action work)
    {
        long started = Stopwatch.GetTimestamp();
        work();
        return Stopwatch.GetElapsedTime(started).TotalMilliseconds;
    }

    public void Dispose() { }
}

/// <summary>Times of repeated runs, in milliseconds.</summary>
/// <param name="Median">The middle one.</param>
/// <param name="Low">A tenth is faster.</param>
/// <param name="High">A tenth is slower.</param>
/// <param name="Runs">How many.</param>
public sealed record Timing(double Median, double Low, double High, int Runs)
{
    /// <summary>Repeats <paramref name="work"/> with a cold cache until it has run often or long enough, after <paramref name="warmup"/> runs that do
    /// not count.</summary>
    internal static Timing Measure(IDeviceTimer timer, Action work, int runs, TimeSpan atMost, int warmup = 2)
    {
        for (int i = 0; i < warmup; i++) timer.Time(work);
        var times = new List<double>(runs);
        long started = Stopwatch.GetTimestamp();
        while (times.Count < runs && (times.Count < 3 || Stopwatch.GetElapsedTime(started) < atMost))
        {
            timer.FlushCache();
            times.Add(timer.Time(work));
        }
        return Of(times);
    }

    /// <summary>Sums up single times.</summary>
    internal static Timing Of(List<double> times)
    {
        times.Sort();
        int middle = times.Count / 2;
        double median = times.Count % 2 == 1 ? times[middle] : (times[middle - 1] + times[middle]) / 2;
        return new Timing(median, times[times.Count / 10], times[times.Count - 1 - (times.Count / 10)], times.Count);
    }
}
