using System.Text.Json;
using Xunit;

namespace ConvLLaVA.Cli.Tests;

/// <summary><c>selftest</c>, <c>bench</c>, <c>profile</c> and <c>run --profile</c>.</summary>
public sealed class InstrumentTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string File(string name) => Path.Combine(_folder, name);

    private static JsonElement Json(string path) => JsonDocument.Parse(System.IO.File.ReadAllText(path)).RootElement;

    [Fact]
    public void Selftest_prints_a_line_a_check_and_writes_json()
    {
        string output = CommandLine.Run("selftest", "--small", "--device", "cpu", "--dtype", "float32", "--json", File("s.json")).Succeeds();
        JsonElement report = Json(File("s.json"));
        Assert.True(report.GetProperty("passed").GetBoolean());
        int checks = report.GetProperty("checks").GetArrayLength();
        Assert.Equal(checks + 1, output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.Contains($"{checks} of {checks} passed", output);
        Assert.True(report.GetProperty("checks")[0].GetProperty("tolerance").GetDouble() > 0);
    }

    [Fact]
    public void Bench_prints_a_table_and_writes_json()
    {
        string output = CommandLine.Run("bench", "encode", "decode", "--model", "synth:tiny", "--device", "cpu", "--runs", "1", "--contexts", "30", "--sequences", "1,2", "--batches", "1", "--json", File("b.json")).Succeeds();
        Assert.Contains("decode at 30 batch 2", output);
        Assert.Contains("choosing the tokens is part of e2e only", output);
        JsonElement report = Json(File("b.json"));
        Assert.Equal("bfloat16", report.GetProperty("dtype").GetString());
        Assert.True(report.GetProperty("ceilings").GetProperty("copy_gb_s").GetDouble() > 0);
        JsonElement row = report.GetProperty("rows")[0];
        Assert.Equal("encode 128 batch 1", row.GetProperty("name").GetString());
        Assert.True(row.GetProperty("ms").GetProperty("median").GetDouble() > 0);
        Assert.True(row.GetProperty("percent_of_copy").GetDouble() > 0);
    }

    [Fact]
    public void Bench_load_alone_writes_json_with_memory()
    {
        string output = CommandLine.Run("bench", "load", "--model", "synth:tiny", "--device", "cpu", "--json", File("l.json")).Succeeds();
        Assert.Contains("peak resident", output);
        JsonElement report = Json(File("l.json"));
        Assert.Contains(report.GetProperty("rows").EnumerateArray(), row => row.GetProperty("name").GetString() == "process start to first token");
        Assert.True(report.GetProperty("memory").GetProperty("ledger").GetInt64() > 0);
    }

    [Fact]
    public void More_threads_than_processors_are_warned_of()
    {
        string[] request = ["run", "--model", "synth:tiny", "--device", "cpu", "--prompt", "what", "-n", "3"];
        CommandLine plain = CommandLine.Run(request), many = CommandLine.Run([.. request, "--threads", $"{Environment.ProcessorCount + 1}"]);
        Assert.Equal(plain.Succeeds(), many.Succeeds());
        Assert.DoesNotContain("Threads", plain.Error);
        Assert.Contains($"Threads is {Environment.ProcessorCount + 1}", many.Error);
    }

    [Fact]
    public void Profile_shows_operations_and_writes_a_trace()
    {
        string output = CommandLine.Run("profile", "--model", "synth:tiny", "--device", "cpu", "--prompt", "what", "-n", "3", "--trace", File("t.json"), "--json", File("p.json")).Succeeds();
        Assert.Contains("norm + gated MLP", output);
        Assert.Contains("of ceiling", output);
        Assert.True(Json(File("t.json")).GetProperty("traceEvents").GetArrayLength() > 10);
        Assert.True(Json(File("p.json"))[0].GetProperty("count").GetInt32() > 0);
    }

    [Fact]
    public void Run_with_profile_keeps_the_answer_alone_on_stdout()
    {
        string[] request = ["run", "--model", "synth:tiny", "--device", "cpu", "--prompt", "what", "-n", "3"];
        CommandLine plain = CommandLine.Run(request), profiled = CommandLine.Run([.. request, "--profile"]), traced = CommandLine.Run([.. request, "--profile", File("t.json")]);
        Assert.Equal(plain.Succeeds(), profiled.Succeeds());
        Assert.Equal(plain.Output, traced.Succeeds());
        Assert.Contains("norm + logits", profiled.Error);
        Assert.True(System.IO.File.Exists(File("t.json")));
    }

    [Fact]
    public void Bench_kernels_times_each_shape_once_whatever_the_layers()
    {
        CommandLine.Run("bench", "kernels", "--model", "synth:tiny", "--device", "cpu", "--runs", "1", "--prompts", "20", "--contexts", "30", "--json", File("k.json")).Succeeds();
        using JsonDocument report = JsonDocument.Parse(System.IO.File.ReadAllText(File("k.json")));
        string[] names = [.. report.RootElement.GetProperty("rows").EnumerateArray().Select(row => row.GetProperty("name").GetString()!)];
        Assert.Contains(names, name => name.StartsWith("norm + gated MLP", StringComparison.Ordinal));
        Assert.Equal(names.Distinct(), names);
    }

    [Fact]
    public void Bench_refuses_an_unknown_kind() => CommandLine.Run("bench", "flight", "--model", "synth:tiny").IsBadInput("flight", "encode");

    [Fact]
    public void Bench_refuses_numbers_that_are_none() => CommandLine.Run("bench", "prefill", "--model", "synth:tiny", "--prompts", "12,x").IsBadInput("--prompts", "x");

    [Fact]
    public void Bench_refuses_a_file_it_cannot_write() => CommandLine.Run("bench", "prefill", "--model", "synth:tiny", "--json", Path.Combine(_folder, "no", "x.json")).IsBadInput("x.json");

    [Fact]
    public void Selftest_refuses_an_unknown_preset() => CommandLine.Run("selftest", "--preset", "13b").IsBadInput("13b");

    [Fact]
    public void Selftest_refuses_an_unknown_device() => CommandLine.Run("selftest", "--device", "tpu").IsBadInput("tpu", "cuda");

    [Fact]
    public void Profile_refuses_a_trace_it_cannot_write() => CommandLine.Run("profile", "--model", "synth:tiny", "--prompt", "x", "--trace", _folder).IsBadInput(_folder);
}
