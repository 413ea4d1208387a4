using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Xunit;

namespace ConvLLaVA.Cuda.Tests;

/// <summary>The libraries that this process loads: the fake driver and cuBLASLt, compiled from <c>fake/driver.c</c>, and the real NVRTC.
/// A process resolves each library once, so this is settled before any test; tests that want other libraries start another
/// process.</summary>
internal static unsafe class FakeLibraries
{
    /// <summary>Kinds of handles, as <c>fake/driver.c</c> numbers them.</summary>
    public enum Kind
    {
        Context, Module, Stream, Event, Graph, Exec, DeviceMemory, Pinned, Registered, Lt, Descriptor, Layout, Preference,
    }

    /// <summary>The folder that <c>CONVLLAVA_CUDA_PATH</c> names in this process.</summary>
    public static string Folder { get; private set; } = "";

    /// <summary>Why there is no fake driver; null when there is.</summary>
    public static string? Missing { get; private set; }

    /// <summary>Skips the test where no C compiler made the fake driver.</summary>
    public static void Need()
    {
        if (Missing is not null) Assert.Skip(Missing);
    }

    /// <summary>Handles of a kind that are alive.</summary>
    public static int Live(Kind kind) => ((delegate* unmanaged[Cdecl]<int, int>)Export(kind < Kind.Lt ? CudaLibrary.Driver : CudaLibrary.CublasLt, "fake_live"))((int)kind);

    /// <summary>Requires that no call was made that the real libraries would refuse.</summary>
    public static void AssertNoViolation()
    {
        foreach (CudaLibrary library in (CudaLibrary[])[CudaLibrary.Driver, CudaLibrary.CublasLt])
        {
            int count = ((delegate* unmanaged[Cdecl]<int>)Export(library, "fake_violations"))();
            string? last = Marshal.PtrToStringUTF8(((delegate* unmanaged[Cdecl]<nint>)Export(library, "fake_last_violation"))());
            Assert.True(count == 0, $"{count} calls that {library} would refuse, the last one: {last}");
        }
    }

    /// <summary>Argument <paramref name="index"/> of the last launch, its eight bytes.</summary>
    public static ulong Argument(int index) => ((delegate* unmanaged[Cdecl]<int, ulong>)Export(CudaLibrary.Driver, "fake_argument"))(index);

    /// <summary>Copies the fake driver (and cuBLASLt unless told otherwise) to <paramref name="folder"/>.</summary>
    public static void CopyTo(string folder, bool cublasLt = true)
    {
        File.Copy(Path.Combine(Folder, "libcuda.so.1"), Path.Combine(folder, "libcuda.so.1"));
        if (cublasLt) File.Copy(Path.Combine(Folder, "libcublasLt.so.13"), Path.Combine(folder, "libcublasLt.so.13"));
    }

    [ModuleInitializer]
    internal static void Prepare()
    {
        _ = NvidiaFolder.Place; // reads CONVLLAVA_CUDA_PATH before it is changed here
        Folder = TestFolder.Create("libraries");
        Missing = OperatingSystem.IsLinux() ? Compile() : "The fake driver is for Linux.";
        if (NvidiaFolder.Place is { } nvidia)
        {
            string real = Path.Combine(nvidia, "site-packages", "nvidia", "cu13", "lib", "libnvrtc.so.13");
            if (File.Exists(real)) File.CreateSymbolicLink(Path.Combine(Folder, "libnvrtc.so.13"), real);
        }
        Environment.SetEnvironmentVariable("CONVLLAVA_CUDA_PATH", Folder);
        Environment.SetEnvironmentVariable("CONVLLAVA_EMULATED_DEVICE", null);
    }

    private static string? Compile()
    {
        string driver = Path.Combine(Folder, "libcuda.so.1");
        foreach (string compiler in (string[])["gcc", "clang", "cc"])
        {
            try
            {
                using Process process = Process.Start(new ProcessStartInfo(compiler, ["-shared", "-fPIC", "-O1", "-o", driver, Path.Combine(AppContext.BaseDirectory, "fake", "driver.c"), "-lpthread"]) { RedirectStandardError = true })!;
                string error = process.StandardError.ReadToEnd();
                process.WaitForExit();
                if (process.ExitCode != 0) throw new InvalidOperationException($"{compiler} does not compile fake/driver.c: {error}");
                File.Copy(driver, Path.Combine(Folder, "libcublasLt.so.13"));
                return null;
            }
            catch (System.ComponentModel.Win32Exception)
            {
                // not installed; the next one
            }
        }
        return "No C compiler (gcc or clang) is installed, which makes the fake driver.";
    }

    private static nint Export(CudaLibrary library, string name) => NativeLibrary.GetExport(CudaLibraries.Probe(library).Handle, name);
}
