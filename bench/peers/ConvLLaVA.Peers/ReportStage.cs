using System.Globalization;
using System.Text;

namespace ConvLLaVA.Peers;

/// <summary>Writes the page and its pictures from the record.</summary>
internal static class ReportStage
{
    public static void Run(PeerOptions options, PeerRecord record, Action<string> say)
    {
        string pictures = Path.Combine(options.Docs, "performance");
        Directory.CreateDirectory(pictures);
        ChartFont.Load();
        Charts.Roofline(record, Path.Combine(pictures, "roofline.png"));
        Charts.Peers(record, Path.Combine(pictures, "peers.png"));
        Charts.Contexts(record, Path.Combine(pictures, "contexts.png"));
        string page = Path.Combine(options.Docs, "performance.md");
        File.WriteAllText(page, Page(record, Path.GetFileName(options.Record)), new UTF8Encoding(false));
        say($"wrote {page}");
    }

    private static string Page(PeerRecord record, string recordName)
    {
        var page = new StringBuilder();
        Line(page, $"""
            # Performance on a CPU

            Written by `bench/peers/run.sh` from `bench/results/{recordName}`; nothing here is typed by hand. `bench/README.md` says how the
            times are taken: the same weights and threads for everybody, programs in turn within each round, one warm-up, medians, and every
            result checked against this engine's fp32 before its time counts.

            {record.Machine.Cpu} ({record.Machine.Vectors}), {record.Machine.Threads} threads, {record.Machine.MemoryGb} GB, {record.Date:yyyy-MM-dd}.
            """);
        if (record.Rates is { } rates)
        {
            Line(page, $"""

                Rates of the machine, measured in the same process:

                | fp32 multiply-adds from registers | reading memory | copying memory (read + write) | this engine's fp32 product 1024 x 1024 x 1024 |
                |---|---|---|---|
                | {rates.FmaGflops:F0} Gflop/s | {rates.ReadGbS:F1} GB/s | {rates.CopyGbS:F1} GB/s | {rates.GemmGflops:F0} Gflop/s ({100 * rates.GemmGflops / rates.FmaGflops:F0} % of the multiply-adds) |
                """);
        }
        if (record.ReadBesideDecodeGbS is { } read)
            Line(page, $"\nWhat memory gives changes with what else the machine does. Between the runs of decoding in 16 bits, reading it in order gave {read:F1} GB/s.");
        Beside(page, record);
        Aims(page, record);
        Contexts(page, record);
        Operations(page, record);
        Memory(page, record);
        Line(page, "\n## Versions\n\n| what | version |\n|---|---|");
        foreach ((string what, string version) in record.Versions) Line(page, $"| {what} | {version} |");
        return page.ToString();
    }

    private static void Beside(StringBuilder page, PeerRecord record)
    {
        PeerTime[] times = [.. record.Times.Where(time => !IsContext(time))];
        if (times.Length == 0) return;
        Line(page, """

            ## Beside other programs

            ![ratios](performance/peers.png)

            The encoder is the published ConvNeXt of five stages; the language model is four layers of the published 7B model with its whole
            vocabulary, prefill of 512 tokens and 64 decoding steps after it. The last column says how many times as fast this engine is on
            weights of the same size.

            | work | program | median ms | lowest tenth – highest | runs | tokens/s | this engine |
            |---|---|---|---|---|---|---|
            """);
        Dictionary<(string, string, string), double> ratios = Comparison.Of(record).ToDictionary(row => (row.Work, row.Class, row.Theirs), row => row.Ratio);
        foreach (PeerTime time in times)
        {
            string rate = time.Units > 1 ? Number(time.PerSecond, time.PerSecond < 100 ? "F1" : "F0") : "";
            string ratio = ratios.TryGetValue((time.Work, time.Class, time.Contestant), out double value) ? Number(value, "F2") + "x" : "";
            Line(page, $"| {time.Work} | {time.Contestant} | {Number(time.Ms.Median, "F1")} | {Number(time.Ms.Low, "F1")} – {Number(time.Ms.High, "F1")} | {time.Ms.Runs} | {rate} | {ratio} |");
        }
        Line(page, "\nWhat everybody computed, against this engine's fp32:\n\n| work | program | measure | found | allowed |\n|---|---|---|---|---|");
        foreach (PeerCheck check in record.Checks) Line(page, $"| {check.Work} | {check.Contestant} | {check.Measure} | {check.Value:0.0e-0} | {check.Allowed:0.0e-0} |");
    }

    private static void Aims(StringBuilder page, PeerRecord record)
    {
        Aim[] aims = [.. Aim.Of(record)];
        if (aims.Length == 0) return;
        Line(page, "\n## What was aimed at\n\n| aim | at least | reached |\n|---|---|---|");
        foreach (Aim aim in aims) Line(page, $"| {aim.What} | {Number(aim.Least, "F2")} | {Number(aim.Reached, "F2")}{(aim.Reached >= aim.Least ? "" : " (missed)")} |");
    }

    private static void Contexts(StringBuilder page, PeerRecord record)
    {
        PeerTime[] times = [.. record.Times.Where(IsContext)];
        if (times.Length == 0) return;
        string[] works = [.. times.Select(time => time.Work).Distinct()];
        Line(page, $"\n## Decoding over the length of the context\n\n![tokens a second over the context](performance/contexts.png)\n\nMilliseconds a token:\n\n| program | {string.Join(" | ", works)} |\n|---|{string.Concat(Enumerable.Repeat("---|", works.Length))}");
        foreach (IGrouping<string, PeerTime> row in times.GroupBy(time => time.Contestant))
            Line(page, $"| {row.Key} | {string.Join(" | ", works.Select(work => row.FirstOrDefault(time => time.Work == work) is { } time ? Number(time.Ms.Median, "F1") : ""))} |");
    }

    private static void Operations(StringBuilder page, PeerRecord record)
    {
        if (record.Operations.Count == 0 || record.Rates is not { } rates) return;
        Line(page, """

            ## Operations

            ![roofline](performance/roofline.png)

            Each operation alone with a cold cache; its share of what the machine allows is the least time that reading its bytes and fp32
            multiply-adds would take, over its time. Products of quantised weights add integers, for which the fp32 line is no limit. What
            takes under 0.1 ms is left out.

            | part | operation | ms | Gflop/s | GB/s | of what the machine allows |
            |---|---|---|---|---|---|
            """);
        foreach (OperationTime operation in record.Operations.Where(operation => operation.Ms >= 0.1))
        {
            double least = Math.Max(operation.Bytes / rates.ReadGbS, operation.Flops / rates.FmaGflops) / 1e6;
            Line(page, $"| {operation.Part} | {operation.Name} | {Number(operation.Ms, "F2")} | {Number(operation.Flops / operation.Ms / 1e6, "F1")} | {Number(operation.Bytes / operation.Ms / 1e6, "F1")} | {Number(100 * least / operation.Ms, "F0")} % |");
        }
    }

    private static void Memory(StringBuilder page, PeerRecord record)
    {
        if (record.Footprints.Count == 0) return;
        Line(page, "\n## Memory and start-up\n\n| what | found | at most |\n|---|---|---|");
        foreach (Footprint row in record.Footprints) Line(page, $"| {row.What} | {Number(row.Value, "F2")} {row.Unit} | {(row.Limit is { } limit ? $"{Number(limit, "F2")} {row.Unit}" + (row.Value <= limit ? "" : " (missed)") : "")} |");
    }

    private static bool IsContext(PeerTime time) => time.Work.StartsWith("decode at ", StringComparison.Ordinal);

    private static string Number(double value, string format) => value.ToString(format, CultureInfo.InvariantCulture);

    private static void Line(StringBuilder page, FormattableString text) => page.Append(text.ToString(CultureInfo.InvariantCulture)).Append('\n');

    private static void Line(StringBuilder page, string text) => page.Append(text).Append('\n');
}
