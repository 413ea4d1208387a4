using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using ConvLLaVA.Cuda;
using Xunit;

namespace ConvLLaVA.Kernels.Tests;

/// <summary>The emulated device, which this whole process runs on: a process looks for its CUDA libraries once. It is built when first
/// needed; where that is not possible, every test that needs it is skipped with the reason.</summary>
internal static unsafe class EmulatedDevice
{
    private static readonly Lock Gate = new();
    private static readonly Lazy<string?> Problem = new(Build);
    private static readonly Dictionary<Kernel, CudaModule> Modules = [];
    private static CudaContext? _context;
    private static CudaStream? _stream;

    /// <summary>Names a file that gets the names of the kernel files that have run, one a line.</summary>
    public const string KernelListVariable = "CONVLLAVA_TEST_KERNEL_LIST";

    private static readonly HashSet<string> Launched = [];

    /// <summary>Orders in which warps and blocks run; results may depend on none of it. A slow device can be given fewer.</summary>
    private static readonly string[] Orders = Environment.GetEnvironmentVariable("CONVLLAVA_TEST_ORDERS") is { Length: > 0 } orders ? orders.Split(',') : ["forward", "reverse", "random:7"];

    /// <summary>An emulated device that the caller has built and set, as <c>tools/emulate.sh</c> does, or null: the plain build, made when first needed.</summary>
    private static readonly string? Given =
        Environment.GetEnvironmentVariable("CONVLLAVA_EMULATED_DEVICE") is { Length: > 0 } && Environment.GetEnvironmentVariable("CONVLLAVA_CUDA_PATH") is { Length: > 0 } folder ? folder : null;

    private static string LibraryFolder => Given ?? Path.Combine(Repository.Root, "artifacts", "emulator");

    /// <summary>Before anything else of this process asks for a CUDA library.</summary>
    [ModuleInitializer]
    [SuppressMessage("Usage", "CA2255", Justification = "The finder reads the variables once, at its first use.")]
    internal static void ChooseLibraries()
    {
        Environment.SetEnvironmentVariable("CONVLLAVA_CUDA_PATH", LibraryFolder);
        Environment.SetEnvironmentVariable("CONVLLAVA_EMULATED_DEVICE", "1");
    }

    /// <summary>Skips the test where there is no emulated device.</summary>
    public static void SkipWithout()
    {
        if (Problem.Value is { } problem) Assert.Skip(problem);
    }

    /// <summary>Runs <paramref name="body"/> once in each order of warps and blocks, requires the same answer to the bit, and returns it.</summary>
    public static float[] InEveryOrder(Func<KernelRun, float[]> body)
    {
        float[]? first = null;
        foreach (string order in Orders)
        {
            float[] answer = Run(body, order);
            if (first is null)
            {
                first = answer;
                continue;
            }
            Assert.Equal(first.Length, answer.Length);
            for (int i = 0; i < first.Length; i++)
            {
                if (BitConverter.SingleToInt32Bits(first[i]) != BitConverter.SingleToInt32Bits(answer[i]))
                {
                    Assert.Fail($"element {i} is {first[i]} with warps in order and {answer[i]} with warps in order {order}");
                }
            }
        }
        return first!;
    }

    /// <summary>Runs <paramref name="body"/> on the device, alone.</summary>
    /// <param name="body">Uploads, launches, reads back.</param>
    /// <param name="order">Order of warps and of blocks: <c>forward</c>, <c>reverse</c>, <c>random</c> or <c>random:SEED</c>.</param>
    public static T Run<T>(Func<KernelRun, T> body, string order = "forward")
    {
        SkipWithout();
        lock (Gate)
        {
            Open();
            Configure("warp_order", order);
            Configure("block_order", order);
            try
            {
                using var run = new KernelRun(_context!, _stream!);
                return body(run);
            }
            catch (CudaException error)
            {
                string report = LastReport();
                Close();
                if (report.Length == 0) throw;
                throw new EmulatorReportException(report, error);
            }
        }
    }

    /// <summary>The kernel called <paramref name="entry"/>; only inside <see cref="Run"/>.</summary>
    internal static CudaFunction Function(Kernel kernel, string entry)
    {
        if (!Modules.TryGetValue(kernel, out CudaModule? module)) Modules.Add(kernel, module = new CudaModule(_context!, kernel.Image));
        string file = kernel.Name.Split(' ')[0];
        if (Environment.GetEnvironmentVariable(KernelListVariable) is { Length: > 0 } list && Launched.Add(file)) File.AppendAllText(list, file + '\n');
        return module.GetFunction(entry);
    }

    private static void Open()
    {
        if (_context is null)
        {
            _context = new CudaContext(CudaDevice.Get(0));
            _stream = new CudaStream(_context);
        }
        _context.MakeCurrent();
    }

    /// <summary>After an error of the device nothing works any more: the next run starts with a fresh one.</summary>
    private static void Close()
    {
        foreach (CudaModule module in Modules.Values) module.Dispose();
        Modules.Clear();
        _stream?.Dispose();
        _context?.Dispose();
        _stream = null;
        _context = null;
        ((delegate* unmanaged[Cdecl]<void>)Export("emuReset"))();
    }

    private static string LastReport()
    {
        Span<byte> text = stackalloc byte[4096];
        fixed (byte* pointer = text) ((delegate* unmanaged[Cdecl]<byte*, nuint, nuint>)Export("emuLastReport"))(pointer, (nuint)text.Length);
        int end = text.IndexOf((byte)0);
        return Encoding.UTF8.GetString(text[..Math.Max(0, end)]);
    }

    private static void Configure(string name, string value)
    {
        fixed (byte* key = Encoding.UTF8.GetBytes(name + '\0'), setting = Encoding.UTF8.GetBytes(value + '\0'))
        {
            int result = ((delegate* unmanaged[Cdecl]<byte*, byte*, int>)Export("emuConfigure"))(key, setting);
            if (result != 0) throw new InvalidOperationException($"The emulated device does not know the setting {name}={value}.");
        }
    }

    private static nint Export(string name) => NativeLibrary.GetExport(CudaLibraries.Probe(CudaLibrary.Driver).Handle, name);

    /// <summary>Builds it; null when it is there, else why not. A compiler's errors are no reason to skip.</summary>
    private static string? Build()
    {
        if (!OperatingSystem.IsLinux()) return "The emulated device is built on Linux only.";
        if (Environment.GetEnvironmentVariable("CXX") is null && !InPath("g++") && !InPath("clang++")) return "There is no C++ compiler (g++ or clang++) to build the emulated device with.";
        var start = new ProcessStartInfo("bash") { RedirectStandardOutput = true, RedirectStandardError = true };
        start.ArgumentList.Add(Path.Combine(Repository.Root, "kernels", "emulator", "build.sh"));
        if (Given is null)
        {
            using Process process = Process.Start(start)!;
            Task<string> output = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
            process.WaitForExit();
            if (process.ExitCode != 0) throw new InvalidOperationException($"kernels/emulator/build.sh failed:\n{output.Result}{errors.Result}");
        }
        ProbeTable driver = CudaLibraries.Probe(CudaLibrary.Driver);
        if (!driver.Found || Path.GetDirectoryName(driver.LoadedPath) != Path.GetFullPath(LibraryFolder))
        {
            throw new InvalidOperationException($"These tests must run on the emulated device: {driver.Summary}\n{driver.ToText()}");
        }
        return null;
    }

    private static bool InPath(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Any(folder => folder.Length > 0 && File.Exists(Path.Combine(folder, program)));
}

/// <summary>What the emulated device has found wrong with a kernel or a launch.</summary>
public sealed class EmulatorReportException(string report, Exception cause) : Exception(report, cause);
