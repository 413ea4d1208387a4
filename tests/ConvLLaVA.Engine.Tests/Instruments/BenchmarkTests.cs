using System.Text.Json;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Instruments;

/// <summary>Benchmark and profiler: what they count, and that they report it. Nothing here has a time limit.</summary>
public sealed class BenchmarkTests
{
    private static readonly LoadOptions Cpu = new() { Device = Device.Cpu, Threads = 2 };
    private static readonly BenchPlan Short = new() { Model = "synth:tiny", Kinds = ["encode"], Runs = 1, TimeEach = TimeSpan.Zero };

    [Fact]
    public async Task EveryKind_Reports()
    {
        BenchPlan plan = Short with { Kinds = BenchPlan.AllKinds, Batches = [1, 2], Prompts = [20, 33], Contexts = [17, 40], Sequences = [1, 3] };
        BenchReport report = await new Benchmark(plan, Cpu).RunAsync();
        Assert.True(report.ChecksPassed > 20);
        Assert.True(report.Ceilings.CopyGbS > 0 && report.Ceilings.GemmTflopS > 0 && report.Ceilings.ReadGbS > 0 && report.Ceilings.FmaTflopS > 0);
        Assert.All(report.Rows, row => Assert.True(row.Ms.Median > 0 && row.Ms.Low <= row.Ms.Median && row.Ms.Median <= row.Ms.High, row.ToString()));
        string[] names = [.. report.Rows.Select(row => row.Name)];
        foreach (string name in (string[])["load", "encode 128 batch 1", "encode 128 batch 2", "prefill 20", "prefill 33", "decode at 17", "decode at 40 batch 3", "e2e first token", "depthwise 7x7 + norm [1024, 16]"])
            Assert.Contains(name, names);

        BenchRow step = report.Rows.First(row => row.Name == "decode at 17");
        Assert.Equal(100 * step.GbS / report.Ceilings.ReadGbS!.Value, step.PercentOfRead!.Value, 6);
        Assert.Equal(100 * step.TflopS / report.Ceilings.FmaTflopS!.Value, step.PercentOfFma!.Value, 6);

        BenchRow Row(string name) => report.Rows.First(row => row.Name == name);
        Assert.Equal(2 * Row("encode 128 batch 1").Flops, Row("encode 128 batch 2").Flops);
        // A decoding step reads every weight of the language model once, but of the embedding only its rows.
        const long Read = 2L * ((2 * ((128 * (128 + 64 + 64 + 128)) + (3 * 128 * 344))) + (512 * 128));
        Assert.InRange(Row("decode at 17").Bytes, Read, Read + 60_000);
        Assert.InRange(Row("decode at 40 batch 3").Bytes, Read, Read + 200_000);
        Assert.InRange(Row("prefill 33").Flops, 33L * (Read - (2 * 512 * 128)), 2 * 33L * Read);
    }

    [Theory]
    [InlineData("flight")]
    [InlineData("")]
    public void AnUnknownKind_IsRefused(string kind) => Assert.Contains("encode", Assert.Throws<InvalidInputException>(() => new Benchmark(Short with { Kinds = kind == "" ? [] : [kind] }, Cpu)).Message, StringComparison.Ordinal);

    [Fact]
    public async Task MoreContextThanTheModelHas_IsRefused()
        => Assert.Contains("1024 positions", (await Assert.ThrowsAsync<InvalidInputException>(() => new Benchmark(Short with { Kinds = ["decode"], Contexts = [1024] }, Cpu).RunAsync())).Message, StringComparison.Ordinal);

    [Fact]
    public async Task Profiler_SeesEveryOperationOfARequestAndNoOther()
    {
        var profiler = new Profiler();
        await using ConvLlava model = await ConvLlava.LoadAsync("synth:tiny", Cpu with { Profiler = profiler, ReusePrefixes = false });
        PromptRequest request = PromptRequest.Ask("what", ImageInput.FromFile(Path.Combine(Repository.Root, "samples", "shapes-1.png")));
        var options = new GenerationOptions { MaxNewTokens = 3 };
        GenerationResult unobserved = await model.AnswerAsync(request, options);
        Assert.Empty(profiler.Stop());

        profiler.Start();
        GenerationResult observed = await model.AnswerAsync(request, options);
        IReadOnlyList<ProfileEvent> events = profiler.Stop();
        Assert.Equal(unobserved.TokenIds, observed.TokenIds);
        int steps = events.Count(happened => happened.IsStep);
        Assert.Equal(observed.TokenIds.Count, steps);
        Assert.Equal(6, events.Count(happened => happened.Name == "depthwise 7x7 + norm"));
        Assert.Equal(2 * steps, events.Count(happened => happened.Name == "norm + gated MLP"));
        Assert.Equal(steps, events.Count(happened => happened.Name == "norm + logits"));

        IReadOnlyList<ProfileLine> lines = ProfileReport.Lines(events, new Ceilings(10, 0.1));
        Assert.Equal(1, lines.Sum(line => line.Share), 1e-9);
        Assert.All(lines, line => Assert.True(line.Ceiling >= 0, line.ToString()));
        Assert.Equal(lines.Select(line => line.Milliseconds).OrderDescending(), lines.Select(line => line.Milliseconds));

        using var trace = new MemoryStream();
        ProfileReport.WriteTrace(trace, events);
        using JsonDocument json = JsonDocument.Parse(trace.ToArray());
        Assert.Equal(events.Count, json.RootElement.GetProperty("traceEvents").GetArrayLength());
        await model.AnswerAsync(request, options);
        Assert.Empty(profiler.Stop().Except(events));
    }

    [Theory]
    [InlineData("7b-768", 472.0 + 4.2)]
    [InlineData("7b-1024", 839.1 + 7.5)]
    [InlineData("7b-1536", 1887.9 + 16.9)]
    public void TheEncodersCost_IsTheKnownOne(string preset, double gigaMultiplications)
    {
        OperationCost cost = PlannedCost.Encoding($"synth:{preset}", DType.BFloat16, 1);
        // The known figure counts convolutions and products alone; norms are a little on top.
        Assert.InRange(cost.Flops / 2e9, gigaMultiplications, 1.01 * gigaMultiplications);
    }

    [Fact]
    public void TheDecodersCost_IsTheKnownOne()
    {
        OperationCost decode = PlannedCost.Decoding("synth:7b-1536", DType.BFloat16, 700, 1);
        // All weights but the embedding table, and the pages of 701 tokens.
        Assert.InRange(decode.Bytes, 13_214_000_000 + (701L * 524_288), 13_225_000_000 + (701L * 524_288));
        OperationCost prefill = PlannedCost.Prefilling("synth:7b-1536", DType.BFloat16, 636);
        Assert.InRange(prefill.Flops, 8.33e12, 8.40e12);
    }

    [Fact]
    public void Timing_TakesTheMiddle()
    {
        Timing timing = Timing.Of([5, 1, 2, 100, 3, 4, 6, 7, 8, 9]);
        Assert.Equal((5.5, 2, 9, 10), (timing.Median, timing.Low, timing.High, timing.Runs));
        Assert.Equal(7, Timing.Of([7]).Median);
    }
}
