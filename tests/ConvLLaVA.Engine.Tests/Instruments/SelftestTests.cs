using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Instruments;

/// <summary>The self-test passes on the CPU backend, and does not pass when an operation is wrong.</summary>
public sealed class SelftestTests
{
    private static readonly LoadOptions Cpu = new() { Device = Device.Cpu, Threads = 2 };

    [Theory]
    [InlineData(DType.Float32)]
    [InlineData(DType.Float16)]
    [InlineData(DType.BFloat16)]
    public void SmallShapes_Pass(DType type)
    {
        var selftest = new Selftest(Cpu with { WeightType = type }, SyntheticPreset.Get("tiny"), small: true);
        IReadOnlyList<SelftestCheck> checks = selftest.Run();
        Assert.All(checks, check => Assert.True(check.Passed, check.ToString()));
        Assert.All(checks, check => Assert.True(check.Compared > 0, check.ToString()));
        Assert.StartsWith("cpu", selftest.BackendName, StringComparison.Ordinal);
    }

    [Fact]
    public void AModelsShapes_Pass()
        => Assert.All(new Selftest(Cpu, SyntheticPreset.Get("tiny"), small: false).Run(), check => Assert.True(check.Passed, check.ToString()));

    [Theory]
    [InlineData("gather patches")]
    [InlineData("layer norm")]
    [InlineData("depthwise 7x7 + norm")]
    [InlineData("norm + 2x2 gather")]
    [InlineData("linear + GELU")]
    [InlineData("linear")]
    [InlineData("linear + residual")]
    [InlineData("embed tokens")]
    [InlineData("norm + QKV + RoPE")]
    [InlineData("attention (prefill)")]
    [InlineData("attention (decode)")]
    [InlineData("norm + gated MLP")]
    [InlineData("norm + logits")]
    [InlineData("sample")]
    public void AnOperationThatDoesNothing_IsFound(string name)
    {
        var skip = new Skipping(name);
        var selftest = new Selftest(Cpu, SyntheticPreset.Get("tiny"), small: true) { Wrap = backend => new ObservedBackend(backend, skip, ownsInner: false) };
        SelftestCheck[] failed = [.. selftest.Run().Where(check => !check.Passed)];
        Assert.True(skip.Skipped > 0, "the self-test never calls it");
        Assert.NotEmpty(failed);
    }

    [Fact]
    public void AnOperationThatThrows_IsReportedAndTheOthersGoOn()
    {
        var selftest = new Selftest(Cpu, SyntheticPreset.Get("tiny"), small: true) { Wrap = backend => new ObservedBackend(backend, new Throwing("norm + gated MLP"), ownsInner: false) };
        IReadOnlyList<SelftestCheck> checks = selftest.Run();
        Assert.All(checks.Where(check => check.Name == "norm + gated MLP"), check => Assert.Equal("broken on purpose", check.Failure));
        Assert.All(checks.Where(check => check.Name != "norm + gated MLP"), check => Assert.True(check.Passed, check.ToString()));
        Assert.Contains(checks, check => check.Name == "norm + gated MLP");
    }

    [Fact]
    public void Comparison_SeesWhatIsNotANumber()
    {
        var comparison = new Comparison();
        comparison.Add([1, float.NaN], [1, 1]);
        Assert.Equal(double.PositiveInfinity, comparison.Error);
        var single = new Comparison();
        for (int i = 0; i < 10_000; i++) single.Add(i == 77 ? 0.5f : 1, 1);
        Assert.InRange(single.Error, 0.004, 0.006); // one wrong element hardly shows in the norm
        Assert.InRange(single.Worst, 0.49, 0.51); // but here
    }

    [Fact]
    public void Samples_TouchEveryStretch()
    {
        Assert.Equal(Enumerable.Range(0, 10), Samples.Of(10, 10, 1));
        int[] chosen = Samples.Of(1000, 50, 3);
        Assert.Equal(0, chosen[0]);
        Assert.Equal(999, chosen[^1]);
        Assert.All(Enumerable.Range(0, 50), stretch => Assert.Contains(chosen, number => number / 20 == stretch));
    }

    private sealed class Skipping(string name) : IOperationObserver
    {
        public int Skipped { get; private set; }

        public void Observe(OperationCost cost, Action operation)
        {
            if (cost.Name == name) Skipped++;
            else operation();
        }

        public void ObserveStep(PagedBatch batch, Action step) => step();
    }

    private sealed class Throwing(string name) : IOperationObserver
    {
        public void Observe(OperationCost cost, Action operation)
        {
            if (cost.Name == name) throw new InvalidOperationException("broken on purpose");
            operation();
        }

        public void ObserveStep(PagedBatch batch, Action step) => step();
    }
}
