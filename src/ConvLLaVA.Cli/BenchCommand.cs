using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava bench</c>: times of a model and its parts, beside what the device can do.</summary>
internal static class BenchCommand
{
    private const string DecodeMeans = "decode is a step up to its logits; choosing the tokens is part of e2e only.";

    public static Command Create()
    {
        var command = new Command("bench", "Measure a model: results are checked first, then times are taken with a cold cache and held against rates measured in the same run.");
        var kinds = new Argument<string[]>("KIND") { Description = $"What to measure: {string.Join(", ", BenchPlan.AllKinds)}. {DecodeMeans}", Arity = ArgumentArity.OneOrMore };
        var model = new ModelOptions();
        var json = new Option<string?>("--json") { Description = "Also write the result to this file.", HelpName = "FILE" };
        var sizes = Numbers("--image-sizes", "Sides of pictures to encode; without it the model's own.");
        var batches = Numbers("--batches", "Pictures encoded at once; without it 1,8.");
        var prompts = Numbers("--prompts", "Lengths of prompts; without it 204,316,636.");
        var contexts = Numbers("--contexts", "Tokens of context to decode at; without it 700,4000.");
        var sequences = Numbers("--sequences", "Sequences that decode together; without it 1,8.");
        var runs = new Option<int>("--runs") { Description = "Most runs of each.", DefaultValueFactory = _ => 20, HelpName = "N" };
        command.Add(kinds);
        model.AddTo(command);
        foreach (Option option in (Option[])[json, sizes, batches, prompts, contexts, sequences, runs]) command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            var defaults = new BenchPlan { Model = "", Kinds = [] };
            var plan = new BenchPlan
            {
                Model = model.ModelFolder(parsed),
                Kinds = parsed.GetValue(kinds)!,
                ImageSizes = List(parsed, sizes),
                Batches = List(parsed, batches) ?? defaults.Batches,
                Prompts = List(parsed, prompts),
                Contexts = List(parsed, contexts),
                Sequences = List(parsed, sequences) ?? defaults.Sequences,
                Runs = parsed.GetValue(runs),
            };
            using OutputFile? file = parsed.GetValue(json) is { } path ? new OutputFile(path) : null;
            var benchmark = new Benchmark(plan, model.LoadOptions(parsed), line => Console.Error.WriteLine(line))
            {
                Partial = report => file?.Complete(JsonSerializer.Serialize(report, InstrumentJson.Default.BenchReport)),
            };
            Print(await benchmark.RunAsync(cancellation));
            return Program.Done;
        });
        return command;
    }

    private static void Print(BenchReport report)
    {
        Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{report.Model} on {report.Backend}, {report.Dtype}; {report.ChecksPassed} checks passed; copy {report.Ceilings.CopyGbS:F1} GB/s, products {report.Ceilings.GemmTflopS:F3} TFLOP/s"));
        bool cpu = report.Ceilings.ReadGbS is not null;
        if (cpu) Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"read {report.Ceilings.ReadGbS:F1} GB/s, multiply-adds {report.Ceilings.FmaTflopS:F3} TFLOP/s"));
        var table = new TextTable("", "ms", "low", "high", "runs", "GB/s", "TFLOP/s", cpu ? "of read" : "of copy", cpu ? "of FMA peak" : "of products");
        foreach (BenchRow row in report.Rows)
        {
            table.Add(row.Name, Number(row.Ms.Median, "F3"), Number(row.Ms.Low, "F3"), Number(row.Ms.High, "F3"), Number(row.Ms.Runs, "F0"),
                row.Bytes > 0 ? Number(row.GbS, "F1") : "", row.Flops > 0 ? Number(row.TflopS, "F3") : "",
                Percent(row.Bytes > 0 ? row.PercentOfRead ?? row.PercentOfCopy : null), Percent(row.Flops > 0 ? row.PercentOfFma ?? row.PercentOfGemm : null));
        }
        table.WriteTo(Console.Out);
        if (report.Rows.Any(row => row.Name.StartsWith("decode ", StringComparison.Ordinal))) Console.Out.WriteLine(DecodeMeans);
        if (report.Memory is not { } memory) return;
        var held = new TextTable("memory after one answer", "MiB");
        foreach ((string owner, long bytes) in ((string, long)[])[("weights", memory.Weights), ("weights in mapped files", memory.MappedWeights), ("KV cache", memory.KvCache), ("workspace", memory.Workspace), ("image features", memory.ImageFeatures), ("all of these", memory.Ledger)])
            held.Add(owner, Number(bytes / 1048576.0, "F1"));
        if (memory.PeakResident is { } peak) held.Add($"peak resident ({Number(100.0 * peak / memory.Ledger, "F1")} %)", Number(peak / 1048576.0, "F1"));
        held.WriteTo(Console.Out);
    }

    private static string Number(double value, string format) => value.ToString(format, CultureInfo.InvariantCulture);

    private static string Percent(double? value) => value is { } percent ? Number(percent, "F0") + " %" : "";

    private static Option<string?> Numbers(string name, string description) => new(name) { Description = description, HelpName = "N,..." };

    private static int[]? List(ParseResult parsed, Option<string?> option)
    {
        if (parsed.GetValue(option) is not { } text) return null;
        string[] parts = text.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        if (parts.Length == 0) throw new InvalidInputException($"{option.Name} is empty but must be numbers separated by commas.");
        return [.. parts.Select(part => int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out int number)
            ? number
            : throw new InvalidInputException($"{option.Name} holds '{part}' but must be whole numbers separated by commas."))];
    }
}
