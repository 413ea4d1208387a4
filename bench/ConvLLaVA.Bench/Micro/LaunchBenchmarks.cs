using BenchmarkDotNet.Attributes;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Bench.Micro;

/// <summary>Host work of one decoding step of a model so small that its arithmetic hardly counts. On the emulated device
/// (<c>tools/emulate.sh</c>) only the allocations mean anything: launching must allocate nothing.</summary>
[MemoryDiagnoser]
public class LaunchBenchmarks
{
    private BenchStep _step = null!;

    [GlobalSetup]
    public async Task Setup() => _step = await BenchStep.CreateAsync("synth:tiny", 40);

    [GlobalCleanup]
    public void Cleanup() => _step.Dispose();

    [Benchmark]
    public void DecodeStep() => _step.Run();
}
