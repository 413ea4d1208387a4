using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tests;
using Xunit;

[assembly: Xunit.v3.Parallelization(Mode = Xunit.Sdk.ParallelMode.None)] // there is one emulated device, with one set of faults and counters

namespace ConvLLaVA.Gpu.Tests;

/// <summary>The emulated device: built once a run when it is not up to date, set up anew for each test, and asked afterwards whether it
/// found a mistake.</summary>
internal static unsafe class Emulator
{
    private static readonly Lazy<string?> Problem = new(Build);

    /// <summary>Where its libraries are built.</summary>
    public static string Folder { get; } = Path.Combine(Repository.Root, "artifacts", "emulator");

    /// <summary>Where the tests keep compiled kernels from run to run.</summary>
    public static string KernelCache { get; } = Path.Combine(Repository.Root, "artifacts", "test-kernels");

    [ModuleInitializer]
    [SuppressMessage("Usage", "CA2255", Justification = "The bindings read these variables when they are first used, whichever test that is.")]
    internal static void SetEnvironment()
    {
        Environment.SetEnvironmentVariable("CONVLLAVA_EMULATED_DEVICE", "1");
        Environment.SetEnvironmentVariable("CONVLLAVA_CUDA_PATH", Folder);
        Environment.SetEnvironmentVariable("CONVLLAVA_KERNEL_CACHE", KernelCache);
        Environment.SetEnvironmentVariable("CONVLLAVA_KERNELS", null);
    }

    /// <summary>A device as after a start of the process; skips the test, with the reason, where it cannot be built.</summary>
    public static void Start()
    {
        if (Problem.Value is { } problem) Assert.Skip(problem);
        Call<Reset>("emuReset")();
        Configure("memory", "2G");
        Configure("capability", "9.0");
        Configure("sm_count", "8");
        Configure("streams", "lazy");
    }

    /// <summary>Changes the device; before a model is loaded.</summary>
    public static void Configure(string name, string value)
    {
        fixed (byte* text = Encoding.UTF8.GetBytes(name + '\0'), second = Encoding.UTF8.GetBytes(value + '\0'))
            Assert.Equal(0, Call<TwoTexts>("emuConfigure")(text, second));
    }

    /// <summary>Lets the n-th call of a kind fail: <c>alloc:1</c>, <c>kernel:20</c>.</summary>
    public static void Inject(string fault)
    {
        fixed (byte* text = Encoding.UTF8.GetBytes(fault + '\0')) Assert.Equal(0, Call<OneText>("emuInjectFault")(text));
    }

    /// <summary>One of the driver's counters.</summary>
    public static long Counter(string name)
    {
        fixed (byte* text = Encoding.UTF8.GetBytes(name + '\0')) return Call<Count>("emuCounter")(text);
    }

    /// <summary>Fails when the device reported a mistake in a kernel or a call.</summary>
    public static void RequireNoReports()
    {
        if (Counter("reports") == 0) return;
        byte* buffer = stackalloc byte[4096];
        Call<Report>("emuLastReport")(buffer, 4096);
        Assert.Fail($"{Counter("reports")} reports of the emulated device; the last one: {Marshal.PtrToStringUTF8((nint)buffer)}");
    }

    private static T Call<T>(string name) where T : Delegate
        => Marshal.GetDelegateForFunctionPointer<T>(NativeLibrary.GetExport(CudaLibraries.Probe(CudaLibrary.Driver).Handle, name));

    private static string? Build()
    {
        if (!OperatingSystem.IsLinux()) return "The emulated device is built on Linux only.";
        string script = Path.Combine(Repository.Root, "kernels", "emulator", "build.sh");
        if (!File.Exists(script)) return "The emulated device is not part of this checkout.";
        using Process build = Process.Start(new ProcessStartInfo("bash", [script, "--out", Folder]) { RedirectStandardError = true, RedirectStandardOutput = true })!;
        Task<string> output = build.StandardOutput.ReadToEndAsync();
        string errors = build.StandardError.ReadToEnd();
        build.WaitForExit();
        if (build.ExitCode != 0) return $"The emulated device cannot be built: {errors.Trim()} {output.Result.Trim()}";
        ProbeTable driver = CudaLibraries.Probe(CudaLibrary.Driver);
        return driver.Found ? null : driver.Summary;
    }

    private delegate void Reset();

    private delegate int OneText(byte* text);

    private delegate int TwoTexts(byte* first, byte* second);

    private delegate long Count(byte* name);

    private delegate nuint Report(byte* buffer, nuint size);
}
