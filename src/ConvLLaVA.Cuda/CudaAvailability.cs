namespace ConvLLaVA.Cuda;

/// <summary>Whether a GPU can be used, and if not, why, in one sentence.</summary>
/// <param name="Devices">All devices that the driver shows, also those that are too old.</param>
/// <param name="Usable">Of them, the ones that can be used; empty when something is missing.</param>
/// <param name="Reason">Why none can be used; null when one can.</param>
public sealed record CudaAvailability(IReadOnlyList<CudaDevice> Devices, IReadOnlyList<CudaDevice> Usable, string? Reason)
{
    /// <summary>Oldest architecture that the kernels are written for: Turing.</summary>
    public const int MinimumArchitecture = 75;

    /// <summary>Oldest driver: graphs and launches are used in the form that CUDA 12.0 gave them.</summary>
    public static Version MinimumDriver { get; } = new(12, 0);

    internal const string Hint = "'convllava doctor' lists every place that was looked at.";

    /// <summary>Why a GPU that was asked for cannot be used, with where to read on; null when one can.</summary>
    public string? Failure => Reason is null ? null : $"No GPU can be used: {Reason} {Hint}";

    /// <summary>True when at least one device can be used.</summary>
    public bool IsUsable => Reason is null;

    /// <summary>True when the devices are emulated.</summary>
    public bool IsEmulated => CudaLibraries.IsEmulated;

    /// <summary>Finds out. Never throws, allocates nothing on a device.</summary>
    /// <param name="needsCompiler">False when all kernels are compiled already, so that NVRTC is not needed.</param>
    public static CudaAvailability Probe(bool needsCompiler = true)
    {
        IReadOnlyList<CudaDevice> devices = [];
        try
        {
            if (DriverProblem(out devices) is { } driver) return new CudaAvailability(devices, [], driver);
            if ((needsCompiler ? CompilerProblem() : null) is { } compiler) return new CudaAvailability(devices, [], compiler);
            ProbeTable cublas = CudaLibraries.Probe(CudaLibrary.CublasLt);
            if (!cublas.Found) return new CudaAvailability(devices, [], cublas.Summary);
            if (TooNew(cublas) is { } tooNew) return new CudaAvailability(devices, [], tooNew);
            CudaDevice[] usable = [.. devices.Where(device => device.Architecture >= MinimumArchitecture)];
            return new CudaAvailability(devices, usable, usable.Length > 0 ? null : TooOld(devices));
        }
        catch (Exception error) when (error is CudaException or EntryPointNotFoundException)
        {
            return new CudaAvailability(devices, [], error is EntryPointNotFoundException ? $"A library is too old or not NVIDIA's: {error.Message}" : error.Message);
        }
    }

    /// <summary>What is wrong with the driver and its devices, or null.</summary>
    private static string? DriverProblem(out IReadOnlyList<CudaDevice> devices)
    {
        devices = [];
        ProbeTable driver = CudaLibraries.Probe(CudaLibrary.Driver);
        if (!driver.Found) return driver.Summary;
        CuResult started = CuDriver.cuInit(0);
        if (started == CuResult.StubLibrary)
        {
            return $"{driver.LoadedPath} is the CUDA toolkit's stub and not NVIDIA's driver; install the driver, or take the stub's folder off the library path.";
        }
        if (started == CuResult.NoDevice) return $"NVIDIA's driver ({driver.LoadedPath}) finds no GPU.";
        if (started != CuResult.Success) return $"NVIDIA's driver ({driver.LoadedPath}) cannot be used: {Check.Error(started, nameof(CuDriver.cuInit)).Message}";
        if (CudaLibraries.DriverVersion is { } version && version < MinimumDriver)
        {
            return $"NVIDIA's driver ({driver.LoadedPath}) supports CUDA {version}, at least {MinimumDriver} is needed; install a newer driver.";
        }
        devices = CudaDevice.All();
        return devices.Count > 0 ? null : $"NVIDIA's driver ({driver.LoadedPath}) finds no GPU.";
    }

    /// <summary>Why kernels cannot be compiled, in one sentence: NVRTC is missing, not complete, or later than the driver takes. Null when they can.</summary>
    public static string? CompilerProblem()
    {
        ProbeTable nvrtc = CudaLibraries.Probe(CudaLibrary.Nvrtc);
        if (!nvrtc.Found) return nvrtc.Summary;
        if (TooNew(nvrtc) is { } tooNew) return tooNew;
        return BuiltinsProblem(nvrtc);
    }

    /// <summary>Says so when NVRTC's second library is not beside it and NVRTC does not find it elsewhere.</summary>
    internal static string? BuiltinsProblem(ProbeTable nvrtc)
    {
        // The emulated compiler has none and needs none.
        if (CudaLibraries.IsEmulated || nvrtc.LoadedPath is not { } path || NvrtcBuiltins.AreBeside(path, NvrtcCompiler.Version)) return null;
        return NvrtcCompiler.Trial().Problem is { } complaint
            ? $"NVRTC ({path}) cannot compile: its builtins library (libnvrtc-builtins) must lie beside it; it says: {complaint.TrimEnd('.')}."
            : null;
    }

    /// <summary>Says so when a library is of a later CUDA major than the driver, which means that no fitting one was found.</summary>
    private static string? TooNew(ProbeTable table)
    {
        return CudaLibraries.DriverVersion is { } driver && table.Major > driver.Major
            ? $"NVIDIA's driver supports CUDA {driver} and is too old for every {table.Library.Describe()} found ({table.LoadedPath} is of CUDA {table.Major}); update the driver, or install {table.Library.Describe()} of CUDA {driver.Major}."
            : null;
    }

    private static string TooOld(IReadOnlyList<CudaDevice> devices)
    {
        string found = string.Join(", ", devices.Select(device => $"{device.Name} ({device.ComputeCapability})"));
        return $"No GPU here has compute capability 7.5 or newer; found: {found}.";
    }
}
