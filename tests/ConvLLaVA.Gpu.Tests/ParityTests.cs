using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Tests;
using Xunit;

namespace ConvLLaVA.Gpu.Tests;

/// <summary>Whole requests on the emulated device against the CPU backend.</summary>
public sealed class ParityTests : IDisposable
{
    private readonly string _scratch = Directory.CreateTempSubdirectory("convllava-test-").FullName;
    private readonly ITestOutputHelper _output;

    public ParityTests(ITestOutputHelper output)
    {
        _output = output;
        Emulator.Start();
    }

    public void Dispose()
    {
        Directory.Delete(_scratch, true);
        Emulator.RequireNoReports();
    }

    [Theory]
    [InlineData("two-shards")] // five stages, mlp2x_gelu
    [InlineData("text-only")]
    [InlineData("two-images")]
    [InlineData("bin-fp16")] // stored in fp16, heads of 12
    [InlineData("bin-bf16")]
    [InlineData("four-stages")]
    [InlineData("linear-projector")]
    [InlineData("grouped-queries")]
    [InlineData("anyres")] // several tiles
    [InlineData("centre-crop")] // mlp3x_gelu
    public async Task In_fp32_every_tensor_is_the_CPUs_and_the_tokens_are_equal(string name)
    {
        (string checkpoint, string? tower, PromptRequest request, int tokens) = Fixture.Case(name);
        var options = new GenerationOptions { MaxNewTokens = tokens };
        string cpu = Path.Combine(_scratch, "cpu.safetensors"), gpu = Path.Combine(_scratch, "gpu.safetensors");
        await using (ConvLlava model = await ConvLlava.LoadAsync(checkpoint, new LoadOptions { Device = Device.Cpu, VisionTower = tower }))
            await model.DumpAsync(request, options, DumpTensors.All, cpu);
        await using (ConvLlava model = await ConvLlava.LoadAsync(checkpoint, Fixture.Cuda() with { VisionTower = tower }))
        {
            Assert.StartsWith("emulated device", model.BackendName, StringComparison.Ordinal);
            await model.DumpAsync(request, options, DumpTensors.All, gpu);
        }
        (double worst, string tensor) = DumpPair.Compare(gpu, cpu, 1e-4);
        _output.WriteLine($"{name}: largest relative L2 {worst:E2}, of {tensor}");
    }

    [Theory]
    [InlineData("bin-fp16", DType.Float16, 5e-3, 0.05f)]
    [InlineData("bin-bf16", DType.BFloat16, 5e-2, 0.4f)]
    [InlineData("two-shards", DType.Float16, 5e-3, 0.05f)]
    public async Task In_16_bits_tensors_are_near_and_tokens_equal_while_the_margin_is_clear(string name, DType type, double tolerance, float margin)
    {
        (string checkpoint, _, PromptRequest request, int tokens) = Fixture.Case(name);
        GenerationOptions options = Fixture.Greedy with { MaxNewTokens = tokens };
        string cpu = Path.Combine(_scratch, "cpu.safetensors"), gpu = Path.Combine(_scratch, "gpu.safetensors");
        GenerationResult expected, actual;
        await using (ConvLlava model = await ConvLlava.LoadAsync(checkpoint, new LoadOptions { Device = Device.Cpu }))
        {
            await model.DumpAsync(request, options, DumpTensors.All, cpu);
            expected = await model.AnswerAsync(request, options);
        }
        await using (ConvLlava model = await ConvLlava.LoadAsync(checkpoint, Fixture.Cuda(type)))
        {
            await model.DumpAsync(request, options, DumpTensors.All, gpu);
            actual = await model.AnswerAsync(request, options);
        }
        (double worst, string tensor) = DumpPair.Compare(gpu, cpu, tolerance, tokens: false);
        int clear = expected.LogProbs.TakeWhile(entry => entry.Top[0].LogProb - entry.Top[1].LogProb >= margin).Count();
        Assert.True(clear > 0, "the first token's margin is too small: this case proves nothing");
        Assert.Equal(expected.TokenIds.Take(clear), actual.TokenIds.Take(clear));
        _output.WriteLine($"{name} in {type}: largest relative L2 {worst:E2}, of {tensor}; {clear} tokens with a clear margin");
    }

    [Theory]
    [InlineData(128)]
    [InlineData(7)] // prompts in pieces, some of one token
    public async Task Requests_in_company_give_the_tokens_they_give_alone(int stepTokens)
    {
        PromptRequest[] requests =
        [
            Fixture.WithPicture(),
            PromptRequest.Raw(string.Concat(Enumerable.Repeat("Tell me a story about a cat and a dog. ", 4))), // crosses pages
            PromptRequest.Raw("x"),
        ];
        var expected = new List<GenerationResult>();
        await using (ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, new LoadOptions { Device = Device.Cpu }))
        {
            foreach (PromptRequest request in requests) expected.Add(await model.AnswerAsync(request, Fixture.Greedy));
        }
        await using ConvLlava shared = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { MaxStepTokens = stepTokens });
        GenerationResult[] together = await Task.WhenAll(requests.Select(request => shared.AnswerAsync(request, Fixture.Greedy)));
        for (int i = 0; i < requests.Length; i++) Assert.Equal(expected[i].TokenIds, together[i].TokenIds);
        Assert.True(together[1].Usage.PromptTokens > 32, $"{together[1].Usage.PromptTokens} tokens: the prompt must cross pages");
    }

    [Theory]
    [InlineData(3)] // padded to four rows, which the kernels for few rows take
    [InlineData(11)] // padded to sixteen, which are matrix products of many rows
    public async Task Many_requests_decode_together_in_padded_and_recorded_steps(int sequences)
    {
        PromptRequest[] requests = [.. Enumerable.Range(0, sequences).Select(i => PromptRequest.Raw(new string((char)('a' + i), 3 + (7 * i))))];
        var expected = new List<GenerationResult>();
        await using (ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, new LoadOptions { Device = Device.Cpu }))
        {
            foreach (PromptRequest request in requests) expected.Add(await model.AnswerAsync(request, Fixture.Greedy));
        }
        await using ConvLlava shared = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { MaxSequences = sequences, MaxStepTokens = 512, KvCacheTokens = 2048 });
        GenerationResult[] together = await Task.WhenAll(requests.Select(request => shared.AnswerAsync(request, Fixture.Greedy)));
        for (int i = 0; i < sequences; i++) Assert.Equal(expected[i].TokenIds, together[i].TokenIds);
        Assert.True(shared.Gpu().ReplayedSteps > 0);
    }

    [Theory]
    [InlineData(DType.Float16, "7.5", 2e-3)] // compiled as for Turing: no cp.async, 64 KiB of shared memory a block
    [InlineData(DType.Float16, "9.0", 2e-3)]
    [InlineData(DType.BFloat16, "8.0", 1e-2)]
    [InlineData(DType.BFloat16, "8.9", 1e-2)]
    [InlineData(DType.BFloat16, "9.0", 1e-2)]
    public async Task The_demo_model_answers_in_16_bits_as_on_the_CPU(DType type, string capability, double tolerance)
    {
        Emulator.Configure("capability", capability);
        // Heads of 48: the only checkpoint here whose attention runs on tensor cores.
        string folder = Path.Combine(Repository.Root, "models", "convllava-demo");
        if (!Directory.Exists(folder)) Assert.Skip("models/convllava-demo is not there.");
        PromptRequest request = PromptRequest.Ask("What is in this picture?", ImageInput.FromFile(Path.Combine(Repository.Root, "samples", "shapes-1.png")));
        var options = new GenerationOptions { MaxNewTokens = 40 };
        string cpu = Path.Combine(_scratch, "cpu.safetensors"), gpu = Path.Combine(_scratch, "gpu.safetensors");
        await using (ConvLlava model = await ConvLlava.LoadAsync(folder, new LoadOptions { Device = Device.Cpu })) await model.DumpAsync(request, options, DumpTensors.All, cpu);
        await using (ConvLlava model = await ConvLlava.LoadAsync(folder, Fixture.Cuda(type) with { MaxSequences = 1 }))
        {
            Assert.Contains($"sm_{capability.Replace(".", "", StringComparison.Ordinal)}", model.BackendName, StringComparison.Ordinal);
            await model.DumpAsync(request, options, DumpTensors.All, gpu);
        }
        (double worst, string tensor) = DumpPair.Compare(gpu, cpu, tolerance);
        _output.WriteLine($"{type} on {capability}: largest relative L2 {worst:E2}, of {tensor}");
    }

    [Theory]
    [InlineData("eager")]
    [InlineData("random:1")]
    [InlineData("random:2")]
    public async Task Whatever_order_the_device_works_in_the_tokens_are_the_same(string streams)
    {
        Emulator.Configure("streams", streams);
        GenerationResult expected, actual;
        await using (ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, new LoadOptions { Device = Device.Cpu }))
            expected = await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy);
        await using (ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { MaxStepTokens = 9 }))
            actual = await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy);
        Assert.Equal(expected.TokenIds, actual.TokenIds);
    }

    [Fact]
    public async Task Deterministic_results_have_the_same_bits_in_company()
    {
        PromptRequest[] requests = [Fixture.WithPicture(), PromptRequest.Raw("Tell me a story about a cat and a dog")];
        LoadOptions options = Fixture.Cuda() with { Deterministic = true };
        await using ConvLlava alone = await ConvLlava.LoadAsync(Fixture.Tiny, options);
        GenerationResult first = await alone.AnswerAsync(requests[0], Fixture.Greedy), second = await alone.AnswerAsync(requests[1], Fixture.Greedy);
        await using ConvLlava shared = await ConvLlava.LoadAsync(Fixture.Tiny, options with { MaxStepTokens = 11 });
        GenerationResult[] together = await Task.WhenAll(requests.Select(request => shared.AnswerAsync(request, Fixture.Greedy)));
        Assert.Equal(LogProbs(first), LogProbs(together[0]));
        Assert.Equal(LogProbs(second), LogProbs(together[1]));
    }

    [Fact]
    public async Task Replayed_steps_equal_launched_ones()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { ReusePrefixes = false });
        GenerationResult replayed = await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy);
        Assert.True(model.Gpu().ReplayedSteps >= 8, $"{model.Gpu().ReplayedSteps} steps were replayed");
        var observer = new CountingObserver();
        model.Gpu().Observer = observer;
        long before = model.Gpu().ReplayedSteps;
        GenerationResult launched = await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy);
        Assert.Equal(before, model.Gpu().ReplayedSteps);
        Assert.Equal(LogProbs(replayed), LogProbs(launched));
        Assert.Contains("gemv_qkv", observer.Names);
        Assert.Contains("depthwise_norm", observer.Names);
        Assert.Contains("gemm", observer.Names);
        Assert.True(observer.Bytes > 0 && observer.Flops > 0 && observer.Open == 0);
    }

    private static List<(int, float)> LogProbs(GenerationResult result) => [.. result.LogProbs.Select(entry => (entry.Chosen.Id, (float)entry.Chosen.LogProb))];

    private sealed class CountingObserver : ConvLLaVA.Engine.Gpu.IGpuObserver
    {
        public HashSet<string> Names { get; } = [];

        public long Bytes { get; private set; }

        public long Flops { get; private set; }

        public int Open { get; private set; }

        public void Before(string name, long bytes, long flops, ConvLLaVA.Cuda.CudaStream stream)
        {
            Names.Add(name);
            Bytes += bytes;
            Flops += flops;
            Open++;
        }

        public void After(ConvLLaVA.Cuda.CudaStream stream) => Open--;
    }
}
