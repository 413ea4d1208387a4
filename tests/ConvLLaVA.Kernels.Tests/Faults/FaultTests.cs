using ConvLLaVA.Cuda;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Faults;

/// <summary>Kernels with a seeded fault, each of which the emulated device must report in every order of warps; without the fault each
/// must run unreported. What a file holds is told in its head, and how to read that in README.md beside it.</summary>
public sealed class FaultTests
{
    private static string Folder => Path.Combine(Repository.Root, "tests", "ConvLLaVA.Kernels.Tests", "Faults");

    public static TheoryData<string> Files() =>
        [.. Directory.EnumerateFiles(Folder, "*.cu").Select(file => Path.GetFileNameWithoutExtension(file)).Order(StringComparer.Ordinal)];

    [Theory]
    [MemberData(nameof(Files))]
    public void Without_the_fault_nothing_is_reported(string name)
    {
        var head = new Head(name);
        Kernel kernel = Kernel.CompilePath(head.Path, Storage.F32, "FAULT=0");
        float[] output = EmulatedDevice.InEveryOrder(run => Launch(run, kernel, head));
        Assert.DoesNotContain(output, float.IsNaN);
    }

    [Theory]
    [MemberData(nameof(Files))]
    public void With_the_fault_it_is_reported_in_every_order(string name)
    {
        var head = new Head(name);
        Kernel kernel = Kernel.CompilePath(head.Path, Storage.F32, "FAULT=1");
        foreach (string order in (string[])["forward", "reverse", "random:1", "random:2", "random:3"])
        {
            EmulatorReportException report = Assert.Throws<EmulatorReportException>(() => EmulatedDevice.Run(run => Launch(run, kernel, head), order));
            Assert.True(head.Reports.Any(wanted => report.Message.Contains($": {wanted}: ", StringComparison.Ordinal)), $"{order}: {report.Message}");
            Assert.Contains($"{name}.cu:", report.Message, StringComparison.Ordinal);
            Assert.IsType<CudaException>(report.InnerException);
        }
    }

    [Fact]
    public void The_faults_that_matter_are_there()
    {
        string[] seeded =
        [
            "missing_barrier_after_wait", "missing_barrier_before_reuse", "wait_count_one_short", "shared_index", "global_index", "divergent_barrier",
            "partial_warp_shuffle", "unaligned_load",
        ];
        Assert.All(seeded, name => Assert.True(File.Exists(Path.Combine(Folder, name + ".cu")), name));
    }

    private static float[] Launch(KernelRun run, Kernel kernel, Head head)
    {
        int count = head.Grid * head.Block;
        DeviceArray input = run.Upload([.. Enumerable.Range(0, count).Select(i => (i * 37 % 101 / 16.0f) - 2.0f)], Storage.F32);
        DeviceArray output = run.Allocate(count, Storage.F32);
        run.Launch(kernel, "fault", new Dim3(head.Grid), head.Block, head.SharedBytes, input, output, count);
        return run.Read(output);
    }

    /// <summary>What the first lines of a file say.</summary>
    private sealed class Head
    {
        public Head(string name)
        {
            Path = System.IO.Path.Combine(Folder, name + ".cu");
            string[] lines = File.ReadAllLines(Path);
            int[] launch = [.. Field("launch").Split(' ').Select(int.Parse)];
            (Grid, Block, SharedBytes) = (launch[0], launch[1], launch[2]);
            Reports = Field("report").Split(" | ");

            string Field(string field) => lines.Single(line => line.StartsWith($"// {field}: ", StringComparison.Ordinal))[(field.Length + 5)..];
        }

        public string Path { get; }

        public int Grid { get; }

        public int Block { get; }

        public int SharedBytes { get; }

        public string[] Reports { get; }
    }
}
