using System.Diagnostics;
using ConvLLaVA.Cuda;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Sanitizers;

/// <summary>Every kernel, and the emulated device itself, under AddressSanitizer and UBSan: the sanitized build of the device, in a process of
/// these same tests that has the sanitizer loaded ahead of everything else.</summary>
public sealed class SanitizerTests
{
    private static string Emulator => Path.Combine(Repository.Root, "kernels", "emulator");

    /// <summary>The tests of all kernels with one storage type and one order of warps: what the sanitizers look for depends on neither, but
    /// every specialisation takes seconds to compile.</summary>
    [Fact]
    public void Every_kernel_is_clean()
    {
        string list = Path.GetTempFileName();
        try
        {
            (int code, string output) = RunChild(["-class-", "*FaultTests", "-class-", "*Sanitizer*", "-class-", "*EmulatorBuildTests", "-class-", "*FragmentTests"], ("CONVLLAVA_TEST_STORAGE", "BF16"), ("CONVLLAVA_TEST_ORDERS", "random:7"), (EmulatedDevice.KernelListVariable, list));
            Assert.True(code == 0, output);
            Assert.DoesNotMatch("AddressSanitizer|runtime error", output);
            Assert.Matches("Failed: 0, Skipped: 0", output);
            string[] ran = File.ReadAllLines(list), kernels = [.. Directory.EnumerateFiles(Kernel.Folder, "*.cu").Select(file => Path.GetFileName(file)!).Order(StringComparer.Ordinal)];
            Assert.Empty(kernels.Except(ran));
        }
        finally
        {
            File.Delete(list);
        }
    }

    [Fact]
    public void The_emulated_device_is_clean()
    {
        SkipWithoutSanitizer();
        (int code, string output) = Run("bash", [Path.Combine(Emulator, "build.sh"), "--sanitize", "--self-test"], ("ASAN_OPTIONS", Options));
        Assert.True(code == 0, output);
        Assert.DoesNotMatch("AddressSanitizer|runtime error", output);
        Assert.Matches(@"emulated device: \d{4,} checks, 0 failed", output);
    }

    /// <summary>A sanitizer that is not there, or sees nothing of a kernel, would pass the tests above.</summary>
    [Theory]
    [InlineData(0, "Failed: 0")]
    [InlineData(1, "AddressSanitizer: stack-buffer-overflow")]
    [InlineData(2, "runtime error: shift exponent 32 is too large")]
    public void A_seeded_fault_is_reported(int fault, string report)
    {
        (int code, string output) = RunChild(["-explicit", "on", "-class", typeof(SanitizerTargets).FullName!], ("CONVLLAVA_TEST_FAULT", $"{fault}"));
        Assert.Equal(fault == 0, code == 0);
        Assert.Contains(report, output, StringComparison.Ordinal);
        if (fault > 0) Assert.Contains("local_array.cu:", output, StringComparison.Ordinal);
    }

    /// <summary>Leaks are the .NET runtime's, which leaves memory to the exit; so are most segmentation faults, which it handles itself. CUDA
    /// threads have stacks of their own.</summary>
    private const string Options = "detect_leaks=0:handle_segv=0:allow_user_segv_handler=1:use_sigaltstack=0";

    private static string SkipWithoutSanitizer()
    {
        EmulatedDevice.SkipWithout();
        (int code, string library) = Run(Environment.GetEnvironmentVariable("CXX") ?? "g++", ["-print-file-name=libasan.so"]);
        library = library.Trim();
        if (code != 0 || !File.Exists(library)) Assert.Skip("AddressSanitizer for g++ (libasan.so) is not installed.");
        return library;
    }

    /// <summary>Runs tests of this assembly in a process of their own on the sanitized build.</summary>
    private static (int Code, string Output) RunChild(string[] arguments, params (string Name, string Value)[] variables)
    {
        string library = SkipWithoutSanitizer();
        (int code, string output) = Run("bash", [Path.Combine(Emulator, "build.sh"), "--sanitize"]);
        Assert.True(code == 0, output);
        string assembly = typeof(SanitizerTests).Assembly.Location;
        return Run("dotnet", ["exec", assembly, "-noColor", .. arguments],
            [("LD_PRELOAD", library), ("ASAN_OPTIONS", Options), ("UBSAN_OPTIONS", "print_stacktrace=1"), ("CONVLLAVA_EMULATED_DEVICE", "1"),
            ("CONVLLAVA_CUDA_PATH", Path.Combine(Repository.Root, "artifacts", "emulator-sanitize")), .. variables]);
    }

    private static (int Code, string Output) Run(string program, string[] arguments, params (string Name, string Value)[] variables)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach ((string name, string value) in variables) start.Environment[name] = value;
        try
        {
            using Process process = Process.Start(start)!;
            Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
            process.WaitForExit();
            return (process.ExitCode, output.Result + errors.Result);
        }
        catch (System.ComponentModel.Win32Exception error)
        {
            return (127, error.Message);
        }
    }
}

/// <summary>What <see cref="SanitizerTests.A_seeded_fault_is_reported"/> runs in the process with the sanitizer; nothing else runs it.</summary>
public sealed class SanitizerTargets
{
    [Fact(Explicit = true)]
    public void A_kernel_with_a_fault_of_its_own()
    {
        string fault = Environment.GetEnvironmentVariable("CONVLLAVA_TEST_FAULT") ?? "0";
        Kernel kernel = Kernel.CompilePath(Path.Combine(Repository.Root, "tests", "ConvLLaVA.Kernels.Tests", "Sanitizers", "local_array.cu"), Storage.F32, $"FAULT={fault}");
        float[] sums = EmulatedDevice.Run(run =>
        {
            DeviceArray input = run.Upload([.. Enumerable.Range(0, 32).Select(i => (float)i)], Storage.F32), output = run.Allocate(32, Storage.F32);
            run.Launch(kernel, "local_array", new Dim3(1), 32, 0, input, output, 32);
            return run.Read(output);
        });
        Assert.Equal([.. Enumerable.Range(0, 32).Select(i => (float)Enumerable.Range(i, 8).Sum(j => j % 32))], sums);
    }
}
