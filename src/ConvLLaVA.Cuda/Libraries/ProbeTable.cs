using System.Text;

namespace ConvLLaVA.Cuda;

/// <summary>One place where a library was looked for.</summary>
/// <param name="Path">The file, the folder that is not there, or the bare name that the system's loader was given.</param>
/// <param name="Origin">Which step of the search it belongs to, e.g. <c>CUDA_PATH</c>.</param>
/// <param name="Reason">Why it could not be used, in the loader's own words where a file was tried; null for the one that was loaded.</param>
public sealed record ProbedPath(string Path, string Origin, string? Reason)
{
    /// <summary>True when the loader was asked, false when there was nothing to load.</summary>
    public bool Attempted { get; init; }
}

/// <summary>Everything that was tried to find one library.</summary>
/// <param name="Library">Which library.</param>
/// <param name="Paths">What was tried, in order; the last one was loaded when <see cref="Found"/> is true.</param>
/// <param name="Handle">Handle of the library, 0 when it was not found. It is never closed.</param>
/// <param name="LoadedPath">File that was loaded, with links followed where the system says so; null when not found.</param>
/// <param name="Major">CUDA major by the name it was loaded under; 0 for the driver and when not found.</param>
public sealed record ProbeTable(CudaLibrary Library, IReadOnlyList<ProbedPath> Paths, nint Handle, string? LoadedPath, int Major)
{
    /// <summary>True when the library was loaded.</summary>
    public bool Found => Handle != 0;

    /// <summary>The outcome in one sentence.</summary>
    public string Summary
    {
        get
        {
            string name = Library.Describe();
            if (Found) return $"{name} is {LoadedPath} ({Paths[^1].Origin}).";
            // A file that is there and does not load says more than all that are not there; the system's loader comes next.
            ProbedPath? telling = Paths.FirstOrDefault(path => path.Attempted && System.IO.Path.IsPathRooted(path.Path)) ?? Paths.FirstOrDefault(path => path.Attempted);
            string reason = telling is null ? "" : $"; {telling.Path}: {telling.Reason}";
            return $"{name} was not found in {Paths.Count} places{reason}.";
        }
    }

    /// <summary>One line a place.</summary>
    public string ToText()
    {
        var text = new StringBuilder();
        foreach (ProbedPath path in Paths) text.Append("  ").Append(path.Path).Append(" (").Append(path.Origin).Append("): ").AppendLine(path.Reason ?? "loaded");
        return text.ToString();
    }
}

/// <summary>The libraries that are looked for.</summary>
public enum CudaLibrary
{
    /// <summary>The driver, <c>libcuda</c>.</summary>
    Driver,

    /// <summary>The run-time compiler, <c>libnvrtc</c>.</summary>
    Nvrtc,

    /// <summary>Matrix products, <c>libcublasLt</c>.</summary>
    CublasLt,
}

/// <summary>Names of the libraries.</summary>
internal static class CudaLibraryNames
{
    /// <summary>CUDA majors that the bindings fit, newest first.</summary>
    public static IReadOnlyList<int> Majors { get; } = [13, 12];

    /// <summary>Name for people.</summary>
    public static string Describe(this CudaLibrary library) => library switch
    {
        CudaLibrary.Driver => "NVIDIA's driver",
        CudaLibrary.Nvrtc => "NVRTC",
        _ => "cuBLASLt",
    };

    /// <summary>File names of <paramref name="library"/> of CUDA <paramref name="major"/> (0 for the driver, which has none), best first.</summary>
    public static IReadOnlyList<string> FileNames(this CudaLibrary library, int major, bool windows) => library switch
    {
        CudaLibrary.Driver => windows ? ["nvcuda.dll"] : ["libcuda.so.1", "libcuda.so"],
        CudaLibrary.Nvrtc => windows ? [$"nvrtc64_{major}0_0.dll"] : [$"libnvrtc.so.{major}"],
        _ => windows ? [$"cublasLt64_{major}.dll"] : [$"libcublasLt.so.{major}"],
    };

    /// <summary>What the file name of a loaded <paramref name="library"/> begins with, whatever version follows.</summary>
    public static string Stem(this CudaLibrary library, bool windows) => library switch
    {
        CudaLibrary.Driver => windows ? "nvcuda" : "libcuda.so",
        CudaLibrary.Nvrtc => windows ? "nvrtc64_" : "libnvrtc.so",
        _ => windows ? "cublasLt64_" : "libcublasLt.so",
    };
}
