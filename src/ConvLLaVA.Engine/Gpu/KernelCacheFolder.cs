namespace ConvLLaVA.Engine.Gpu;

/// <summary>Where compiled kernels are kept between runs.</summary>
public static class KernelCacheFolder
{
    /// <summary>The environment variable that names the folder.</summary>
    public const string Variable = "CONVLLAVA_KERNEL_CACHE";

    /// <summary>The folder, which need not exist: <c>CONVLLAVA_KERNEL_CACHE</c>, else <c>convllava/kernels</c> in the user's cache folder.</summary>
    public static string Path => Resolve(Environment.GetEnvironmentVariable, OperatingSystem.IsWindows(),
        Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData));

    internal static string Resolve(Func<string, string?> variable, bool windows, string home, string localData)
    {
        if (variable(Variable) is { } named && !string.IsNullOrWhiteSpace(named)) return System.IO.Path.GetFullPath(named.Trim());
        string parent = windows ? localData : variable("XDG_CACHE_HOME") is { } cache && System.IO.Path.IsPathRooted(cache) ? cache : home.Length > 0 ? System.IO.Path.Combine(home, ".cache") : "";
        return System.IO.Path.Combine(parent.Length > 0 ? parent : System.IO.Path.GetTempPath(), "convllava", "kernels");
    }
}
