using System.Diagnostics;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Instruments;

/// <summary>What <c>bench load</c> says about memory.</summary>
public sealed class BenchMemoryTests
{
    [Fact]
    public void Owners_are_told_apart_and_added_up()
    {
        var ledger = new MemoryLedger();
        ledger.Add(MemoryOwner.Weights, 1);
        ledger.Add(MemoryOwner.MappedWeights, 10);
        ledger.Add(MemoryOwner.KvCache, 100);
        ledger.Add(MemoryOwner.Workspace, 1000);
        ledger.Add(MemoryOwner.ImageFeatures, 30_000);
        ledger.Add(MemoryOwner.ImageFeatures, -10_000); // the answer is under way: what counts is the most there ever was
        BenchMemory memory = BenchMemory.Of(ledger);
        Assert.Equal((1, 10, 100, 1000, 30_000), (memory.Weights, memory.MappedWeights, memory.KvCache, memory.Workspace, memory.ImageFeatures));
        Assert.Equal(31_111, memory.Ledger);
    }

    [Fact]
    public void Peak_is_the_processes_own()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Only Linux tells the peak of a process's resident set.");
        long before = Peak();
        long? told = BenchMemory.Of(new MemoryLedger()).PeakResident;
        Assert.InRange(told ?? 0, before, Peak());

        static long Peak()
        {
            using Process self = Process.GetCurrentProcess();
            return self.PeakWorkingSet64;
        }
    }

    [Fact]
    public async Task Load_tells_what_the_engine_holds()
    {
        List<BenchReport> partial = [];
        var plan = new BenchPlan { Model = "synth:tiny", Kinds = ["load"], Runs = 1, TimeEach = TimeSpan.Zero };
        BenchReport report = await new Benchmark(plan, new LoadOptions { Device = Device.Cpu, Threads = 2 }) { Partial = partial.Add }.RunAsync();
        Assert.Same(report.Memory, Assert.Single(partial).Memory);
        BenchMemory memory = report.Memory!;
        Assert.True(memory.KvCache > 0 && memory.Workspace > 0 && memory.ImageFeatures > 0 && memory.Weights + memory.MappedWeights > 0, memory.ToString());
        Assert.Equal(["load", "first token after loading", "process start to first token"], report.Rows.Select(row => row.Name));
    }
}
