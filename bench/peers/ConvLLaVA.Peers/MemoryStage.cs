using System.Diagnostics;
using System.Globalization;
using System.Text.Json;

namespace ConvLLaVA.Peers;

/// <summary>Loading and memory, in processes of their own: each runs <c>convllava bench load</c>.</summary>
internal sealed class MemoryStage(PeerOptions options, PeerRecord record, Action<string> say)
{
    private const double MiB = 1048576;

    public void Run()
    {
        record.Footprints.Clear();
        if (options.Program is not { } program)
        {
            say("memory and start-up are left out: --program names no convllava");
            return;
        }
        JsonElement demo = Load(program, null);
        Add("demo model: process start to first token", Row(demo, "process start to first token"), "ms", 1000);
        Peak("demo model", demo, null);
        if (options.LargeModel is not { } large) return;
        JsonElement whole = Load(program, large);
        Add("7B bf16: load, files warm", Row(whole, "load"), "ms", 2000);
        Add("7B bf16: process start to first token of a picture's answer", Row(whole, "process start to first token"), "ms", null);
        double ledger = Memory(whole, "ledger");
        Peak("7B bf16", whole, 1.05 * ledger / MiB);
        JsonElement small = Load(program, large, "--quantize", "q4");
        Add("7B q4: load, quantising", Row(small, "load"), "ms", null);
        Peak("7B q4", small, 6e9 / MiB);
    }

    private void Peak(string name, JsonElement report, double? limit)
    {
        Add($"{name}: weights, pages and workspace", Memory(report, "ledger") / MiB, "MiB", null);
        Add($"{name}: peak resident set", Memory(report, "peak_resident") / MiB, "MiB", limit);
    }

    private void Add(string what, double value, string unit, double? limit)
    {
        record.Footprints.Add(new Footprint(what, value, unit, limit));
        say(string.Create(CultureInfo.InvariantCulture, $"  {what}: {value:F1} {unit}"));
    }

    private JsonElement Load(string program, string? model, params string[] more)
    {
        string json = Path.Combine(options.WorkFolder, "load.json");
        string[] arguments = ["bench", "load", "--device", "cpu", "--threads", options.Threads.ToString(CultureInfo.InvariantCulture), "--json", json, .. model is null ? [] : (string[])["--model", model], .. more];
        say($"{program} {string.Join(' ', arguments)}");
        File.Delete(json); // what an earlier run left says nothing about this one
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })
            ?? throw new IOException($"{program} does not start.");
        Task<string> messages = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        if (process.ExitCode != 0 || !File.Exists(json))
        {
            string printed = string.Join(" | ", (messages.Result + output).Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries));
            throw new InvalidOperationException($"{program} ends with {process.ExitCode}{(File.Exists(json) ? "" : $" and without having written {json}")}; it printed: {printed}");
        }
        using JsonDocument document = JsonDocument.Parse(File.ReadAllText(json));
        return document.RootElement.Clone();
    }

    private static double Row(JsonElement report, string name)
        => report.GetProperty("rows").EnumerateArray().First(row => row.GetProperty("name").GetString() == name).GetProperty("ms").GetProperty("median").GetDouble();

    private static double Memory(JsonElement report, string name) => report.GetProperty("memory").GetProperty(name).GetDouble();
}
