using System.Diagnostics;
using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tensors;
using Xunit;

[assembly: Xunit.v3.Parallelization(Mode = Xunit.Sdk.ParallelMode.None)] // each test uses all cores itself

namespace ConvLLaVA.Nvrtc.Tests;

/// <summary>Every kernel specialisation of the presets and the demo model, through NVIDIA's own compiler by way of the engine's bindings, for
/// every supported architecture and with both majors: no warnings, no spills, no stack, and the registers and shared memory that are written
/// down. Nothing is left out: the whole takes about 200 seconds of processor time.</summary>
public sealed class ResourceTests
{
    /// <summary>Architectures.</summary>
    public static TheoryData<string> Architectures() => [.. Specialisations.Architectures];

    [Theory]
    [MemberData(nameof(Architectures))]
    public void Every_specialisation_compiles_clean_and_takes_what_the_table_says(string architecture) => Check(architecture, [.. Specialisations.For(architecture), .. Specialisations.Quantised(architecture)]);

    /// <summary>The same with the other major, in a process of its own.</summary>
    [Fact]
    public void The_older_major_agrees()
    {
        if (RealNvrtc.OlderArchive is not { } archive)
        {
            Assert.Skip("There is no NVRTC 12 beside the checkout (shared/cuda/nvrtc-12*.tar.xz).");
            return;
        }
        string folder = Path.Combine(Repository.Root, "artifacts", Path.GetFileName(archive).Replace(".tar.xz", "", StringComparison.Ordinal));
        if (!Directory.Exists(folder))
        {
            string partial = Directory.CreateDirectory($"{folder}.{Environment.ProcessId}").FullName;
            using Process unpack = Process.Start("tar", ["-xJf", archive, "-C", partial]);
            unpack.WaitForExit();
            Assert.Equal(0, unpack.ExitCode);
            Directory.Move(partial, folder);
        }
        (int exitCode, string output) = RealNvrtc.RunChild(typeof(OlderMajorTests).FullName!, folder);
        Assert.True(exitCode == 0, output);
        Assert.Contains("Failed: 0", output, StringComparison.Ordinal);
    }

    [Fact]
    public void A_version_without_a_table_is_told_apart_from_one_without_differences()
    {
        Assert.Null(ResourceTable.Rewrites ? null : ResourceTable.Differences(new Version(1, 0), []));
    }

    /// <summary>Compiles and compares.</summary>
    internal static void Check(string architecture, IReadOnlyList<Engine.Gpu.KernelSpec> specs)
    {
        RealNvrtc.SkipWithout();
        IReadOnlyList<CompiledSpec> compiled = Specialisations.Compile(specs, architecture);
        Assert.All(compiled, spec => Assert.NotEmpty(spec.Kernels));
        Assert.All(compiled, spec => Assert.NotEmpty(spec.Code));
        List<string> problems = [.. compiled.SelectMany(spec => spec.Warnings.Select(warning => $"{spec.Spec} for {architecture}: {warning}"))];
        foreach (CompiledSpec spec in compiled)
        {
            problems.AddRange(spec.Kernels.Where(kernel => kernel.Value.SpillBytes > 0 || kernel.Value.StackBytes > 0)
                .Select(kernel => $"{kernel.Key} of {spec.Spec} for {architecture} spills {kernel.Value.SpillBytes} bytes and has {kernel.Value.StackBytes} bytes of stack"));
        }
        // Another release allots registers otherwise, and that is no fault of the kernels.
        problems.AddRange(ResourceTable.Differences(NvrtcCompiler.Version, compiled) ?? []);
        Assert.True(problems.Count == 0, $"NVRTC {NvrtcCompiler.Version} ({ResourceTable.WriteVariable}=1 rewrites the table):\n{string.Join('\n', problems)}");
    }
}

/// <summary>What <see cref="ResourceTests.The_older_major_agrees"/> runs in the process that holds the older major; nothing else runs it.</summary>
public sealed class OlderMajorTests
{
    [Theory(Explicit = true)]
    [MemberData(nameof(ResourceTests.Architectures), MemberType = typeof(ResourceTests))]
    public void Every_specialisation_compiles_clean(string architecture)
    {
        ResourceTests.Check(architecture, Specialisations.For(architecture));
    }
}
