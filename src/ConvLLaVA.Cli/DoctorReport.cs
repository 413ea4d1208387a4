using System.Runtime.InteropServices;
using System.Text.Json.Serialization;
using ConvLLaVA.Cuda;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Gpu;

namespace ConvLLaVA.Cli;

/// <summary>What <c>convllava doctor</c> found.</summary>
/// <param name="System">Operating system and processor architecture.</param>
/// <param name="Cuda">GPUs and NVIDIA's libraries.</param>
/// <param name="KernelCache">Where compiled kernels are kept.</param>
/// <param name="Cpu">The processor.</param>
/// <param name="Auto">What <c>--device auto</c> takes, and why.</param>
internal sealed record DoctorReport(string System, CudaReport Cuda, CacheReport KernelCache, CpuInfo Cpu, DeviceChoice Auto)
{
    public static DoctorReport Create()
    {
        CudaAvailability cuda = CudaAvailability.Probe();
        return new DoctorReport(
            $"{RuntimeInformation.OSDescription.Trim()}, {RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant()}",
            CudaReport.From(cuda), CacheReport.Of(KernelCacheFolder.Path), CpuInfo.Current, DeviceChoice.Auto(cuda));
    }
}

/// <summary>GPUs and NVIDIA's libraries.</summary>
/// <param name="Usable">Whether <c>--device cuda</c> has what it needs.</param>
/// <param name="Emulated">Whether the device is the emulated one.</param>
/// <param name="Reason">Why it has not; null when it has.</param>
/// <param name="Devices">Devices that the driver shows.</param>
/// <param name="Libraries">Driver, NVRTC and cuBLASLt.</param>
internal sealed record CudaReport(bool Usable, bool Emulated, string? Reason, IReadOnlyList<DeviceReport> Devices, IReadOnlyList<LibraryReport> Libraries)
{
    public static CudaReport From(CudaAvailability cuda) => new(
        cuda.IsUsable, cuda.IsEmulated, cuda.Reason,
        [.. cuda.Devices.Select(DeviceReport.From)],
        [LibraryReport.Driver(), LibraryReport.Nvrtc(), LibraryReport.CublasLt()]);
}

/// <summary>One device.</summary>
/// <param name="Ordinal">Its number.</param>
/// <param name="Name">Its name, as the driver says.</param>
/// <param name="ComputeCapability">Such as 9.0.</param>
/// <param name="MemoryBytes">Device memory.</param>
/// <param name="Multiprocessors">Multiprocessors.</param>
/// <param name="Supported">Whether it is new enough.</param>
internal sealed record DeviceReport(int Ordinal, string Name, string ComputeCapability, long MemoryBytes, int Multiprocessors, bool Supported)
{
    public static DeviceReport From(CudaDevice device) => new(device.Ordinal, device.Name, device.ComputeCapability.ToString(),
        device.TotalMemory, device.MultiprocessorCount, device.Architecture >= CudaAvailability.MinimumArchitecture);
}

/// <summary>One library.</summary>
/// <param name="Library"><c>driver</c>, <c>nvrtc</c> or <c>cublasLt</c>.</param>
/// <param name="Found">Whether it was loaded.</param>
/// <param name="Version">Its version; for the driver the CUDA version that it supports.</param>
/// <param name="Path">The file loaded.</param>
/// <param name="Origin">Which step of the search found it.</param>
/// <param name="Architectures">NVRTC: what it compiles for.</param>
/// <param name="Trial">NVRTC: what came of compiling an empty kernel.</param>
/// <param name="Problem">What is wrong with it; null when nothing is known to be.</param>
/// <param name="Tried">Every place that was tried; the reason is null for the one that was loaded.</param>
internal sealed record LibraryReport(string Library, bool Found, string? Version, string? Path, string? Origin,
    IReadOnlyList<int>? Architectures, string? Trial, string? Problem, IReadOnlyList<PlaceReport> Tried)
{
    public static LibraryReport Driver() => Create("driver", CudaLibrary.Driver, report => report with { Version = CudaLibraries.DriverVersion?.ToString() });

    public static LibraryReport Nvrtc() => Create("nvrtc", CudaLibrary.Nvrtc, report =>
    {
        report = report with { Version = NvrtcCompiler.Version.ToString(), Architectures = NvrtcCompiler.SupportedArchitectures };
        if (CudaLibraries.IsEmulated) return report; // it compiles kernels with the host's compiler, which needs its own headers
        NvrtcTrial trial = NvrtcCompiler.Trial();
        return trial.Problem is null ? report with { Trial = $"{trial.Target}, {trial.Bytes} bytes" } : report with { Problem = trial.Problem };
    });

    public static LibraryReport CublasLt() => Create("cublasLt", CudaLibrary.CublasLt, report => report with { Version = CublasLtHandle.Version.ToString() });

    private static LibraryReport Create(string name, CudaLibrary library, Func<LibraryReport, LibraryReport> complete)
    {
        ProbeTable table = CudaLibraries.Probe(library);
        var report = new LibraryReport(name, table.Found, null, table.LoadedPath, table.Found ? table.Paths[^1].Origin : null, null, null, null,
            [.. table.Paths.Select(path => new PlaceReport(path.Path, path.Origin, path.Reason))]);
        if (!table.Found) return report;
        try
        {
            return complete(report);
        }
        catch (Exception error) when (error is CudaException or EntryPointNotFoundException)
        {
            return report with { Problem = error.Message.ReplaceLineEndings(" ") };
        }
    }
}

/// <summary>One place that a library was looked for.</summary>
internal sealed record PlaceReport(string Path, string Origin, string? Reason);

/// <summary>The kernel cache.</summary>
/// <param name="Folder">The folder.</param>
/// <param name="State"><c>absent</c>, <c>writable</c> or <c>read-only</c>.</param>
internal sealed record CacheReport(string Folder, string State)
{
    public static CacheReport Of(string folder)
    {
        if (!Directory.Exists(folder)) return new CacheReport(folder, "absent");
        try
        {
            string probe = Path.Combine(folder, $".doctor-{Environment.ProcessId}");
            File.WriteAllBytes(probe, []);
            File.Delete(probe);
            return new CacheReport(folder, "writable");
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return new CacheReport(folder, "read-only");
        }
    }
}

[JsonSerializable(typeof(DoctorReport))]
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
internal sealed partial class DoctorJson : JsonSerializerContext;
