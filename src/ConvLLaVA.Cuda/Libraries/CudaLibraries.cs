using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>NVIDIA's libraries as this process has found them. Each is looked for once, when first needed, and never unloaded.</summary>
public static class CudaLibraries
{
    internal const string DriverName = "cuda";
    internal const string NvrtcName = "nvrtc";
    internal const string CublasLtName = "cublasLt";

    private static readonly Lock Gate = new();
    private static readonly ProbeTable?[] Tables = new ProbeTable?[3];
    private static readonly LibraryFinder Finder = new(FinderEnvironment.Current);

    /// <summary>True when the device is the emulated one (<c>CONVLLAVA_EMULATED_DEVICE</c> is set), never a GPU.</summary>
    public static bool IsEmulated => FinderEnvironment.Current.Emulated;

    /// <summary>Looks for <paramref name="library"/> if that has not been done, and says how it went; never throws.</summary>
    public static ProbeTable Probe(CudaLibrary library)
    {
        lock (Gate) return Tables[(int)library] ??= Find(library);
    }

    /// <summary>CUDA version that the driver supports, e.g. 13.0; null without a driver. Needs no GPU.</summary>
    public static Version? DriverVersion
    {
        get
        {
            int version = RawDriverVersion(Probe(CudaLibrary.Driver));
            return version == 0 ? null : new Version(version / 1000, version % 1000 / 10);
        }
    }

    /// <summary>True when the loaded library exports <paramref name="entryPoint"/>; false also when the library is not there.</summary>
    public static bool Exports(CudaLibrary library, string entryPoint)
    {
        ProbeTable table = Probe(library);
        return table.Found && NativeLibrary.TryGetExport(table.Handle, entryPoint, out _);
    }

    [ModuleInitializer]
    [SuppressMessage("Usage", "CA2255", Justification = "An assembly has one resolver; this is the one place that can set it before any call.")]
    internal static void SetResolver() => NativeLibrary.SetDllImportResolver(typeof(CudaLibraries).Assembly, Resolve);

    private static nint Resolve(string name, Assembly assembly, DllImportSearchPath? searchPath)
    {
        CudaLibrary library = name switch
        {
            DriverName => CudaLibrary.Driver,
            NvrtcName => CudaLibrary.Nvrtc,
            CublasLtName => CudaLibrary.CublasLt,
            _ => throw new DllNotFoundException($"ConvLLaVA.Cuda binds no library called {name}."),
        };
        ProbeTable table = Probe(library);
        return table.Found ? table.Handle : throw new CudaLibraryNotFoundException(table);
    }

    private static ProbeTable Find(CudaLibrary library)
    {
        if (library == CudaLibrary.Driver) return Finder.Find(library, 0);
        ProbeTable driver = Tables[(int)CudaLibrary.Driver] ??= Finder.Find(CudaLibrary.Driver, 0);
        ProbeTable table = Finder.Find(library, RawDriverVersion(driver) / 1000);
        if (library == CudaLibrary.Nvrtc && table.LoadedPath is { } path) NvrtcBuiltins.Preload(path);
        return table;
    }

    /// <summary>What <c>cuDriverGetVersion</c> says, such as 13000; 0 when it cannot. It may be called before cuInit.</summary>
    private static unsafe int RawDriverVersion(ProbeTable driver)
    {
        if (!driver.Found || !NativeLibrary.TryGetExport(driver.Handle, "cuDriverGetVersion", out nint function)) return 0;
        int version = 0;
        return ((delegate* unmanaged[Cdecl]<int*, CuResult>)function)(&version) == CuResult.Success ? version : 0;
    }
}
