using System.Globalization;
using ConvLLaVA.Engine.Instruments;

namespace ConvLLaVA.Cli;

/// <summary>Shows what a profiler recorded.</summary>
internal static class ProfileOutput
{
    /// <summary>Prints the table: operations, longest first.</summary>
    public static void Print(IReadOnlyList<ProfileEvent> events, Ceilings? ceilings, TextWriter output)
    {
        var table = new TextTable("operation", "calls", "ms", "share", "MB", "GB/s", "TFLOP/s", "of ceiling");
        foreach (ProfileLine line in ProfileReport.Lines(events, ceilings))
        {
            table.Add(line.Name, line.Count.ToString(CultureInfo.InvariantCulture), Number(line.Milliseconds, "F3"), Number(100 * line.Share, "F1") + " %", Number(line.Bytes / 1e6, "F1"),
                Number(line.GigabytesPerSecond, "F1"), Number(line.TeraflopsPerSecond, "F3"), line.Ceiling is { } share ? Number(100 * share, "F0") + " %" : "");
        }
        table.WriteTo(output);
        double operations = events.Where(happened => !happened.IsStep).Sum(happened => happened.DurationMs);
        double whole = events.Count == 0 ? 0 : events.Max(happened => happened.StartMs + happened.DurationMs) - events.Min(happened => happened.StartMs);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{operations:F3} ms in operations of {whole:F3} ms from the first to the last"));
        if (ceilings is null) return;
        output.WriteLine(ceilings.ReadGigabytesPerSecond is { } read
            ? string.Create(CultureInfo.InvariantCulture, $"ceilings measured in this run: read {read:F1} GB/s, multiply-adds {ceilings.FmaTeraflopsPerSecond:F3} TFLOP/s")
            : string.Create(CultureInfo.InvariantCulture, $"ceilings measured in this run: copy {ceilings.CopyGigabytesPerSecond:F1} GB/s, products {ceilings.GemmTeraflopsPerSecond:F3} TFLOP/s"));
    }

    private static string Number(double value, string format) => value.ToString(format, CultureInfo.InvariantCulture);
}
