namespace ConvLLaVA.Cuda;

/// <summary>A place of the search.</summary>
/// <param name="Origin">Which step it belongs to.</param>
/// <param name="Folder">The folder; null when the system's loader is asked by bare name.</param>
internal readonly record struct SearchFolder(string Origin, string? Folder);

/// <summary>NVIDIA's documented search order as a list of folders. What is already loaded comes ahead of them.</summary>
internal sealed class SearchFolders(FinderEnvironment environment)
{
    /// <summary>The step that asks the system's loader.</summary>
    public const string SystemLoader = "system loader";

    private bool Windows => environment.Windows;

    /// <summary>Folders that <c>CONVLLAVA_CUDA_PATH</c> stands for.</summary>
    public IEnumerable<SearchFolder> Explicit(CudaLibrary library)
    {
        if (environment.ExplicitFolder is not { } folder) yield break;
        string origin = FinderEnvironment.ExplicitVariable;
        yield return new SearchFolder(origin, folder);
        foreach (string inside in Toolkit(folder).Where(Directory.Exists)) yield return new SearchFolder(origin, inside);
        if (library == CudaLibrary.Driver) yield break;
        foreach (string site in (string[])[Path.Combine(folder, "site-packages"), folder])
        {
            foreach (string inside in Wheels(site, library).Where(Directory.Exists)) yield return new SearchFolder(origin, inside);
        }
    }

    /// <summary>All further folders, in order.</summary>
    public IEnumerable<SearchFolder> Documented(CudaLibrary library)
    {
        // The driver comes with the system: nobody ships it in an application, a wheel or a toolkit (what is there is a stub).
        if (library == CudaLibrary.Driver)
        {
            yield return new SearchFolder(SystemLoader, null);
            if (Windows) yield break;
            foreach (string folder in (string[])["usr/lib/wsl/lib", environment.Arm ? "usr/lib/aarch64-linux-gnu" : "usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/local/nvidia/lib64", "run/opengl-driver/lib"])
            {
                yield return new SearchFolder("driver folder", Rooted(folder));
            }
            yield break;
        }
        yield return new SearchFolder("application", environment.ApplicationFolder);
        yield return new SearchFolder("application", Path.Combine(environment.ApplicationFolder, "runtimes", environment.RuntimeIdentifier, "native"));
        foreach (string site in SitePackages().Distinct())
        {
            foreach (string folder in Wheels(site, library).Where(Directory.Exists)) yield return new SearchFolder("pip wheel", folder);
        }
        foreach (string prefix in CondaPrefixes().Distinct())
        {
            yield return new SearchFolder("conda", Windows ? Path.Combine(prefix, "Library", "bin") : Path.Combine(prefix, "lib"));
        }
        yield return new SearchFolder(SystemLoader, null);
        foreach (string variable in (string[])["CUDA_PATH", "CUDA_HOME"])
        {
            if (environment.Set(variable) is not { } root) continue;
            foreach (string folder in Toolkit(environment.Absolute(root))) yield return new SearchFolder(variable, folder);
        }
        foreach (string root in InstalledToolkits())
        {
            foreach (string folder in Toolkit(root)) yield return new SearchFolder("toolkit", folder);
        }
    }

    /// <summary>Library folders of a toolkit below <paramref name="root"/>.</summary>
    private IEnumerable<string> Toolkit(string root) => Windows
        ? [Path.Combine(root, "bin", "x64"), Path.Combine(root, "bin")]
        : [Path.Combine(root, "lib64"), Path.Combine(root, "lib"), Path.Combine(root, "targets", environment.Arm ? "sbsa-linux" : "x86_64-linux", "lib")];

    /// <summary>Where NVIDIA's wheels put the library below a <c>site-packages</c>.</summary>
    private IEnumerable<string> Wheels(string site, CudaLibrary library)
    {
        string[] names = library == CudaLibrary.Nvrtc ? ["cuda_nvrtc"] : ["cublas"];
        foreach (int major in CudaLibraryNames.Majors)
        {
            yield return Windows ? Path.Combine(site, "nvidia", $"cu{major}", "bin", "x86_64") : Path.Combine(site, "nvidia", $"cu{major}", "lib");
        }
        foreach (string name in names) yield return Path.Combine(site, "nvidia", name, Windows ? "bin" : "lib");
        if (Windows) yield return Path.Combine(site, "torch", "lib");
    }

    /// <summary>The <c>site-packages</c> of the active environment, then of those that are commonly there.</summary>
    private IEnumerable<string> SitePackages()
    {
        foreach (string prefix in PythonPrefixes())
        {
            if (Windows)
            {
                yield return Path.Combine(prefix, "Lib", "site-packages");
                continue;
            }
            foreach (string python in Matching(Path.Combine(prefix, "lib"), "python3*"))
            {
                yield return Path.Combine(python, "site-packages");
                yield return Path.Combine(python, "dist-packages");
            }
        }
    }

    private IEnumerable<string> PythonPrefixes()
    {
        if (environment.Set("VIRTUAL_ENV") is { } active) yield return active;
        if (environment.Set("CONDA_PREFIX") is { } conda) yield return conda;
        // Not the working folder's .venv: what lies there may be anybody's.
        foreach (string folder in (environment.Set("PATH") ?? "").Split(Windows ? ';' : ':', StringSplitOptions.RemoveEmptyEntries))
        {
            if (!Path.IsPathRooted(folder) || !File.Exists(Path.Combine(folder, Windows ? "python.exe" : "python3"))) continue;
            string prefix = Windows ? folder : Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(folder)) ?? folder;
            yield return prefix;
        }
        if (Windows)
        {
            if (environment.Set("APPDATA") is { } roaming)
            {
                foreach (string version in Matching(Path.Combine(roaming, "Python"), "Python3*")) yield return version;
            }
            if (environment.Set("LOCALAPPDATA") is { } local)
            {
                foreach (string version in Matching(Path.Combine(local, "Programs", "Python"), "Python3*")) yield return version;
            }
            yield break;
        }
        if (environment.Home.Length > 0) yield return Path.Combine(environment.Home, ".local");
        yield return Rooted("usr/local");
        yield return Rooted("usr");
    }

    private IEnumerable<string> CondaPrefixes()
    {
        if (environment.Set("CONDA_PREFIX") is { } active) yield return active;
        IEnumerable<string> common = ((string[])["miniconda3", "anaconda3", "miniforge3", "mambaforge"]).Select(name => Path.Combine(environment.Home, name));
        if (!Windows) common = common.Append(Rooted("opt/conda"));
        foreach (string prefix in environment.Home.Length > 0 ? common.Where(Directory.Exists) : []) yield return prefix;
    }

    private IEnumerable<string> InstalledToolkits()
    {
        if (Windows)
        {
            if (environment.Set("ProgramFiles") is not { } programs) yield break;
            foreach (string root in Matching(Path.Combine(programs, "NVIDIA GPU Computing Toolkit", "CUDA"), "v*")) yield return root;
            yield break;
        }
        yield return Rooted("usr/local/cuda");
        foreach (int major in CudaLibraryNames.Majors)
        {
            foreach (string root in Matching(Rooted("usr/local"), $"cuda-{major}*")) yield return root;
        }
        yield return Rooted("opt/cuda");
    }

    private string Rooted(string folder) => Path.Combine(environment.Root, folder);

    /// <summary>Folders of <paramref name="parent"/> that match, the newest version first; none when it cannot be read.</summary>
    private static IEnumerable<string> Matching(string parent, string pattern)
    {
        try
        {
            return Directory.Exists(parent)
                ? [.. Directory.GetDirectories(parent, pattern).OrderByDescending(VersionOf).ThenByDescending(path => path, StringComparer.Ordinal)]
                : [];
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    private static Version VersionOf(string path)
    {
        string digits = Path.GetFileName(path).TrimStart([.. "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-"]);
        return Version.TryParse(digits.Contains('.') ? digits : digits + ".0", out Version? version) ? version : new Version();
    }
}
