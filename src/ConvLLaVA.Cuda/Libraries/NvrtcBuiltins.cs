using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>NVRTC opens a second library by bare name when it compiles. It lies beside NVRTC; loading it from there first makes it found
/// wherever NVRTC itself was found.</summary>
internal static class NvrtcBuiltins
{
    /// <summary>Loads the builtins beside <paramref name="nvrtcPath"/>; returns their path, or null when there are none or they do not
    /// load, which NVRTC then says itself.</summary>
    public static string? Preload(string nvrtcPath)
    {
        foreach (string file in Beside(nvrtcPath))
        {
            if (NativeLibrary.TryLoad(file, out _)) return file;
        }
        return null;
    }

    /// <summary>True when the builtins of that very version lie beside <paramref name="nvrtcPath"/>.</summary>
    public static bool AreBeside(string nvrtcPath, Version version)
    {
        string name = OperatingSystem.IsWindows() ? $"nvrtc-builtins64_{version.Major}{version.Minor}" : $"libnvrtc-builtins.so.{version.Major}.{version.Minor}";
        return Beside(nvrtcPath).Any(file => Path.GetFileName(file) is { } found && (found == name || found.StartsWith(name + '.', StringComparison.OrdinalIgnoreCase)));
    }

    /// <summary>The builtins' files beside <paramref name="nvrtcPath"/>, newest first.</summary>
    public static IReadOnlyList<string> Beside(string nvrtcPath)
    {
        string? folder = Path.GetDirectoryName(nvrtcPath);
        if (string.IsNullOrEmpty(folder) || !Directory.Exists(folder)) return [];
        string pattern = OperatingSystem.IsWindows() ? "nvrtc-builtins64_*.dll" : "libnvrtc-builtins.so.*";
        return [.. Directory.GetFiles(folder, pattern).OrderByDescending(file => file, StringComparer.Ordinal)];
    }
}
