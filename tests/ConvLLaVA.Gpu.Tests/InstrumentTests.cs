using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Tests;
using Xunit;

namespace ConvLLaVA.Gpu.Tests;

/// <summary>Self-test, benchmark and profiler on the emulated device: the same code that looks at a GPU. Times mean nothing here.</summary>
public sealed class InstrumentTests : IDisposable
{
    private static readonly LoadOptions Cuda = new() { Device = Device.Cuda, WeightType = DType.Float16, KvCacheTokens = 1024, MaxSequences = 4 };
    private readonly string _folder = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public InstrumentTests() => Emulator.Start();

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData(DType.Float32)]
    [InlineData(DType.Float16)]
    [InlineData(DType.BFloat16)]
    public void Selftest_Passes(DType type)
    {
        var selftest = new Selftest(Cuda with { WeightType = type }, SyntheticPreset.Get("tiny"), small: true);
        Assert.All(selftest.Run(), check => Assert.True(check.Passed, check.ToString()));
        Assert.StartsWith("emulated device", selftest.BackendName, StringComparison.Ordinal);
        Emulator.RequireNoReports();
    }

    [Fact]
    public void Selftest_FindsAWrongKernel()
    {
        File.WriteAllText(Path.Combine(_folder, "silu_multiply.cu"), """
            #include "device.cuh"
            KERNEL(256, 4) silu_multiply(const storage* gate_up, storage* y, int rows, int intermediate) {
                for (int i = threadIdx.x; i < intermediate; i += blockDim.x) y[blockIdx.y * intermediate + i] = gate_up[blockIdx.y * 2 * intermediate + i];
            }
            """);
        SelftestCheck[] checks = [.. new Selftest(Cuda with { KernelFolder = _folder }, SyntheticPreset.Get("tiny"), small: true).Run()];
        Assert.All(checks, check => Assert.True(check.Passed || check.Name == "norm + gated MLP", check.ToString()));
        Assert.False(checks.Single(check => check.Name == "norm + gated MLP" && check.Shape.StartsWith("[40, ", StringComparison.Ordinal)).Passed);
        Assert.True(checks.Single(check => check.Name == "norm + gated MLP" && check.Shape.StartsWith("[1, ", StringComparison.Ordinal)).Passed); // few rows take another kernel
    }

    [Fact]
    public async Task Benchmark_ReportsEveryKind()
    {
        var plan = new BenchPlan { Model = "synth:tiny", Kinds = BenchPlan.AllKinds, Batches = [1, 2], Prompts = [30], Contexts = [40], Sequences = [1, 3], Runs = 1, TimeEach = TimeSpan.Zero };
        BenchReport report = await new Benchmark(plan, Cuda).RunAsync();
        string[] names = [.. report.Rows.Select(row => row.Name)];
        foreach (string name in (string[])["load", "encode 128 batch 2", "prefill 30", "decode at 40", "decode at 40 batch 3", "e2e first token", "attention (decode) [1, 128]"]) Assert.Contains(name, names);
        Assert.All(report.Rows, row => Assert.True(row.Ms.Median > 0, row.ToString()));
        Emulator.RequireNoReports();
    }

    [Fact]
    public async Task Profiler_SeesEveryLaunchAndLeavesTheAnswerAlone()
    {
        var profiler = new Profiler();
        await using ConvLlava model = await ConvLlava.LoadAsync("synth:tiny", Cuda with { Profiler = profiler });
        var backend = (GpuBackend)model.Backend;
        PromptRequest request = PromptRequest.Ask("what", ImageInput.FromFile(Path.Combine(Repository.Root, "samples", "shapes-1.png")));
        var options = new GenerationOptions { MaxNewTokens = 6 };
        GenerationResult expected = await model.AnswerAsync(request, options);
        long replayed = backend.ReplayedSteps;
        Assert.True(replayed > 0, "decoding steps are replayed while nobody looks");

        profiler.Start();
        GenerationResult observed = await model.AnswerAsync(request, options);
        IReadOnlyList<ProfileEvent> events = profiler.Stop();
        Assert.Equal(expected.TokenIds, observed.TokenIds);
        Assert.Equal(replayed, backend.ReplayedSteps);
        int tokens = observed.TokenIds.Count;
        Assert.Equal(6, events.Count(happened => happened.Name.StartsWith("depthwise", StringComparison.Ordinal)));
        Assert.Equal(2 * (tokens - 1), events.Count(happened => happened.Name == "gemv_qkv"));
        Assert.All(events, happened => Assert.True(happened.StartMs >= 0 && happened.DurationMs >= 0 && happened.Bytes > 0, happened.ToString()));

        Assert.Equal(expected.TokenIds, (await model.AnswerAsync(request, options)).TokenIds);
        Assert.True(backend.ReplayedSteps > replayed, "and again afterwards");
        Emulator.RequireNoReports();
    }

    [Fact]
    public void Bindings_DescribeEveryProductOfTheLargestModel()
    {
        IReadOnlyList<BindingCheck> checks = BindingsTest.Run("synth:7b-1536", [DType.Float16, DType.BFloat16, DType.Float32]);
        Assert.All(checks, check => Assert.True(check.Passed, check.ToString()));
        Assert.Contains(checks, check => check.Name == "bfloat16 gate and up [636, 4096] -> 22016");
        Assert.Contains(checks, check => check.Name.StartsWith("compile a kernel", StringComparison.Ordinal) && check.Status == "ok");
        Emulator.RequireNoReports();
    }
}
