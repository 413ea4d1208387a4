using System.Diagnostics;
using Xunit;

namespace ConvLLaVA.Kernels.Tests;

/// <summary>The emulated device's own checks: its self-test, and its headers against the ABI facts of the real ones.</summary>
public sealed class EmulatorBuildTests
{
    private static string Folder => Path.Combine(Repository.Root, "kernels", "emulator");

    [Fact]
    public void The_self_test_passes()
    {
        EmulatedDevice.SkipWithout();
        (int code, string output) = Run("bash", Path.Combine(Folder, "build.sh"), "--self-test");
        Assert.True(code == 0, output);
        Assert.Matches(@"emulated device: \d{4,} checks, 0 failed", output);
    }

    [Fact]
    public void Headers_and_exports_agree_with_the_facts_of_the_real_ones()
    {
        EmulatedDevice.SkipWithout();
        string facts = Path.Combine(Repository.Root, "..", "shared", "cuda", "abi", "cuda-13.0.json");
        if (!File.Exists(facts)) Assert.Skip("../shared/cuda/abi is not here.");
        (int code, string output) = Run("python3", Path.Combine(Folder, "tests", "check_abi.py"), facts, Path.Combine(Repository.Root, "artifacts", "emulator"));
        if (code == 127) Assert.Skip("There is no python3.");
        Assert.True(code == 0, output);
    }

    private static (int Code, string Output) Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        try
        {
            using Process process = Process.Start(start)!;
            Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
            process.WaitForExit();
            return (process.ExitCode, output.Result + errors.Result);
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return (127, $"{program} could not be started.");
        }
    }
}
