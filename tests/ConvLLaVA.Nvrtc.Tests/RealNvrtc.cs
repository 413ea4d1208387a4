using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using ConvLLaVA.Cuda;
using Xunit;

namespace ConvLLaVA.Nvrtc.Tests;

/// <summary>NVIDIA's own compiler, which needs no GPU. It is looked for where <c>CONVLLAVA_CUDA_PATH</c> says, then in <c>cuda</c> of the
/// shared folder beside the checkout, then where the engine's finder looks. A process holds one NVRTC: the second major is tried in a
/// process of its own.</summary>
internal static class RealNvrtc
{
    private static string? SharedCuda => Repository.Shared is { } shared && Directory.Exists(Path.Combine(shared, "cuda")) ? Path.Combine(shared, "cuda") : null;

    /// <summary>The archive that holds an older major, or null.</summary>
    public static string? OlderArchive => SharedCuda is { } folder ? Directory.GetFiles(folder, "nvrtc-12*.tar.xz").FirstOrDefault() : null;

    /// <summary>nvdisasm, or null.</summary>
    public static string? Disassembler
    {
        get
        {
            string[] folders = [.. SharedCuda is { } cuda ? (string[])[Path.Combine(cuda, "bin")] : [], .. (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)];
            return folders.Where(folder => folder.Length > 0).Select(folder => Path.Combine(folder, "nvdisasm")).FirstOrDefault(File.Exists);
        }
    }

    [ModuleInitializer]
    [SuppressMessage("Usage", "CA2255", Justification = "The finder reads the variables once, at its first use.")]
    internal static void ChooseLibraries()
    {
        // Should these tests be started on the emulated device: its NVRTC is not the one they are about.
        if (Environment.GetEnvironmentVariable("CONVLLAVA_EMULATED_DEVICE") is { Length: > 0 })
        {
            Environment.SetEnvironmentVariable("CONVLLAVA_EMULATED_DEVICE", null);
            Environment.SetEnvironmentVariable("CONVLLAVA_CUDA_PATH", null);
        }
        if (Environment.GetEnvironmentVariable("CONVLLAVA_CUDA_PATH") is not { Length: > 0 } && SharedCuda is { } folder)
        {
            Environment.SetEnvironmentVariable("CONVLLAVA_CUDA_PATH", folder);
        }
    }

    /// <summary>Skips the test where there is no NVRTC.</summary>
    public static void SkipWithout()
    {
        ProbeTable table = CudaLibraries.Probe(CudaLibrary.Nvrtc);
        if (!table.Found) Assert.Skip($"NVIDIA's NVRTC is needed (set CONVLLAVA_CUDA_PATH): {table.Summary}");
    }

    /// <summary>Runs one test class of this assembly in a process of its own, which finds its libraries in <paramref name="cudaPath"/>.</summary>
    public static (int ExitCode, string Output) RunChild(string testClass, string cudaPath)
    {
        string assembly = typeof(RealNvrtc).Assembly.Location, program = Path.ChangeExtension(assembly, OperatingSystem.IsWindows() ? ".exe" : null)!.TrimEnd('.');
        var start = new ProcessStartInfo(File.Exists(program) ? program : "dotnet") { RedirectStandardOutput = true, RedirectStandardError = true };
        if (!File.Exists(program)) start.ArgumentList.Add(assembly);
        foreach (string argument in (string[])["-noColor", "-explicit", "on", "-class", testClass]) start.ArgumentList.Add(argument);
        start.Environment["CONVLLAVA_CUDA_PATH"] = cudaPath;
        using Process process = Process.Start(start)!;
        Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
        process.WaitForExit();
        return (process.ExitCode, output.Result + errors.Result);
    }
}
