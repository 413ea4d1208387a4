using System.Text.Json;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>One line of a profile: all calls of an operation.</summary>
/// <param name="Name">The operation.</param>
/// <param name="Count">Calls.</param>
/// <param name="Milliseconds">Time of all calls.</param>
/// <param name="Share">Its part of the time of all operations, 0 to 1.</param>
/// <param name="Bytes">Bytes all calls must move at least.</param>
/// <param name="Flops">Floating-point operations of all calls.</param>
/// <param name="Ceiling">The least time that the ceilings allow (read bandwidth and multiply-add peak on the CPU, copy bandwidth and
/// matrix-product rate on a GPU), over the time it took, 0 to 1; null when no ceilings were measured.</param>
public sealed record ProfileLine(string Name, int Count, double Milliseconds, double Share, long Bytes, long Flops, double? Ceiling)
{
    /// <summary>Gigabytes a second.</summary>
    public double GigabytesPerSecond => Milliseconds > 0 ? Bytes / Milliseconds / 1e6 : 0;

    /// <summary>Teraflops a second.</summary>
    public double TeraflopsPerSecond => Milliseconds > 0 ? Flops / Milliseconds / 1e9 : 0;
}

/// <summary>What a <see cref="Profiler"/> recorded, as a table and as a file for chrome://tracing or Perfetto.</summary>
public static class ProfileReport
{
    /// <summary>Adds calls of the same operation up, longest first.</summary>
    /// <param name="events">What was recorded.</param>
    /// <param name="ceilings">What the device can do, or null.</param>
    public static IReadOnlyList<ProfileLine> Lines(IReadOnlyList<ProfileEvent> events, Ceilings? ceilings)
    {
        double total = events.Where(happened => !happened.IsStep).Sum(happened => happened.DurationMs);
        return [.. events.Where(happened => !happened.IsStep).GroupBy(happened => happened.Name).Select(group =>
        {
            double ms = group.Sum(happened => happened.DurationMs);
            double? ceiling = ceilings is null || ms <= 0 ? null : group.Sum(happened => ceilings.LeastMilliseconds(happened.Bytes, happened.Flops)) / ms;
            return new ProfileLine(group.Key, group.Count(), ms, total > 0 ? ms / total : 0, group.Sum(happened => happened.Bytes), group.Sum(happened => happened.Flops), ceiling);
        }).OrderByDescending(line => line.Milliseconds)];
    }

    /// <summary>Writes the events in Chrome's trace format: operations on one row, steps on another.</summary>
    public static void WriteTrace(Stream stream, IReadOnlyList<ProfileEvent> events)
    {
        using var json = new Utf8JsonWriter(stream);
        json.WriteStartObject();
        json.WriteString("displayTimeUnit", "ms");
        json.WriteStartArray("traceEvents");
        foreach (ProfileEvent happened in events)
        {
            json.WriteStartObject();
            json.WriteString("name", happened.Name);
            json.WriteString("ph", "X");
            json.WriteNumber("pid", 1);
            json.WriteNumber("tid", happened.IsStep ? 1 : 2);
            json.WriteNumber("ts", Math.Round(happened.StartMs * 1000, 3));
            json.WriteNumber("dur", Math.Round(happened.DurationMs * 1000, 3));
            if (!happened.IsStep)
            {
                json.WriteStartObject("args");
                json.WriteNumber("bytes", happened.Bytes);
                json.WriteNumber("flops", happened.Flops);
                json.WriteEndObject();
            }
            json.WriteEndObject();
        }
        json.WriteEndArray();
        json.WriteEndObject();
    }
}
