namespace ConvLLaVA.Cuda;

/// <summary>Looks for NVIDIA's libraries and remembers every place and reason. The order: <c>CONVLLAVA_CUDA_PATH</c>, what the process has
/// loaded already, the application's folder, pip wheels, conda, the system's loader, <c>CUDA_PATH</c> and <c>CUDA_HOME</c>,
/// installed toolkits. CUDA majors above the driver's are tried only after all others, in all places.</summary>
internal sealed class LibraryFinder(FinderEnvironment environment)
{
    private readonly SearchFolders _folders = new(environment);

    /// <summary>Looks for <paramref name="library"/>.</summary>
    /// <param name="library">Which library.</param>
    /// <param name="driverMajor">CUDA major that the driver supports; 0 when unknown.</param>
    public ProbeTable Find(CudaLibrary library, int driverMajor)
    {
        var search = new Search(library, environment);
        foreach (IReadOnlyList<int> majors in Tiers(library, driverMajor))
        {
            if (search.Run(_folders, majors)) break;
        }
        return search.Table();
    }

    /// <summary>Majors in groups; a later group is tried only when the earlier ones are nowhere to be found.</summary>
    internal static IEnumerable<IReadOnlyList<int>> Tiers(CudaLibrary library, int driverMajor)
    {
        if (library == CudaLibrary.Driver) return [[0]];
        if (driverMajor == 0) return [CudaLibraryNames.Majors];
        IReadOnlyList<int>[] tiers = [[.. CudaLibraryNames.Majors.Where(major => major <= driverMajor)], [.. CudaLibraryNames.Majors.Where(major => major > driverMajor).Order()]];
        return tiers.Where(tier => tier.Count > 0);
    }

    /// <summary>One search: its table and what was found.</summary>
    private sealed class Search(CudaLibrary library, FinderEnvironment environment)
    {
        private readonly List<ProbedPath> _paths = [];
        private readonly HashSet<string> _seen = [];
        private IReadOnlyList<string>? _modules;
        private nint _handle;
        private string? _loaded;
        private int _major;

        public bool Run(SearchFolders folders, IReadOnlyList<int> majors)
        {
            foreach (SearchFolder place in folders.Explicit(library))
            {
                if (TryFolder(place, majors)) return true;
            }
            // An emulated device must not be mixed with, or taken for, what is installed.
            if (environment.Emulated) return false;
            if (TryLoaded(majors)) return true;
            foreach (SearchFolder place in folders.Documented(library))
            {
                if (place.Folder is null ? TrySystemLoader(majors) : TryFolder(place, majors)) return true;
            }
            return false;
        }

        public ProbeTable Table() => new(library, _paths, _handle, _loaded, _major);

        private bool TryLoaded(IReadOnlyList<int> majors)
        {
            foreach (string module in Modules())
            {
                foreach (int major in majors)
                {
                    string stem = major == 0 ? library.Stem(environment.Windows) : Path.GetFileNameWithoutExtension(library.FileNames(major, true)[0]);
                    string name = Path.GetFileName(module);
                    bool matches = environment.Windows || major == 0
                        ? name.StartsWith(stem, environment.Windows ? StringComparison.OrdinalIgnoreCase : StringComparison.Ordinal)
                        : name == library.FileNames(major, false)[0] || name.StartsWith(library.FileNames(major, false)[0] + ".", StringComparison.Ordinal);
                    if (matches && TryFile(module, "already loaded", major)) return true;
                }
            }
            return false;
        }

        private bool TrySystemLoader(IReadOnlyList<int> majors)
        {
            foreach (int major in majors)
            {
                foreach (string name in library.FileNames(major, environment.Windows))
                {
                    if (TryFile(name, SearchFolders.SystemLoader, major)) return true;
                }
            }
            return false;
        }

        private bool TryFolder(SearchFolder place, IReadOnlyList<int> majors)
        {
            string folder = place.Folder!;
            if (!Directory.Exists(folder))
            {
                if (_seen.Add(folder)) _paths.Add(new ProbedPath(folder, place.Origin, "the folder does not exist"));
                return false;
            }
            foreach (int major in majors)
            {
                foreach (string name in library.FileNames(major, environment.Windows))
                {
                    string file = Path.Combine(folder, name);
                    if (File.Exists(file))
                    {
                        if (TryFile(file, place.Origin, major)) return true;
                    }
                    else if (_seen.Add(file))
                    {
                        _paths.Add(new ProbedPath(file, place.Origin, "no such file"));
                    }
                }
            }
            return false;
        }

        private bool TryFile(string file, string origin, int major)
        {
            if (!_seen.Add(file)) return false;
            try
            {
                _handle = environment.Load(Path.IsPathRooted(file) ? Path.GetFullPath(file) : file);
                _major = major;
                _loaded = ResolvedPath(file);
                _paths.Add(new ProbedPath(file, origin, null) { Attempted = true });
                return true;
            }
            catch (Exception error) when (error is DllNotFoundException or BadImageFormatException or FileLoadException)
            {
                _paths.Add(new ProbedPath(file, origin, LoaderReason(error.Message, file)) { Attempted = true });
                return false;
            }
        }

        private IReadOnlyList<string> Modules() => _modules ??= environment.LoadedModules();

        /// <summary>The file behind a bare name, by the list of loaded modules; links are followed.</summary>
        private string ResolvedPath(string file)
        {
            if (Path.IsPathRooted(file)) return FollowLinks(Path.GetFullPath(file));
            string stem = library.Stem(environment.Windows);
            StringComparison comparison = environment.Windows ? StringComparison.OrdinalIgnoreCase : StringComparison.Ordinal;
            return environment.LoadedModules().FirstOrDefault(module => Path.GetFileName(module).StartsWith(stem, comparison)) ?? file;
        }

        private static string FollowLinks(string file)
        {
            try
            {
                return File.ResolveLinkTarget(file, returnFinalTarget: true)?.FullName ?? file;
            }
            catch (IOException)
            {
                return file;
            }
        }
    }

    /// <summary>What the system's loader said, out of the runtime's longer text, on one line.</summary>
    internal static string LoaderReason(string message, string file)
    {
        // .NET: "Unable to load shared library 'X' or one of its dependencies. In order to help …:\nX: cannot open shared object file: …\n"
        foreach (string line in message.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Skip(1))
        {
            int end = line.StartsWith(file, StringComparison.Ordinal) ? file.Length : -1;
            return end > 0 && end < line.Length && line[end] == ':' ? line[(end + 1)..].Trim() : line;
        }
        return message.ReplaceLineEndings(" ").Trim();
    }
}
