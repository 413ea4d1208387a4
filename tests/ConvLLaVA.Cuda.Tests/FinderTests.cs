using Xunit;

namespace ConvLLaVA.Cuda.Tests;

/// <summary>The order of the search and the reasons it keeps, on made-up machines: folders with files that do not load, and a loader
/// that loads what the test names.</summary>
public sealed class FinderTests
{
    private readonly string _root = TestFolder.Create("finder");
    private readonly Dictionary<string, string?> _variables = [];
    private readonly HashSet<string> _loads = [];
    private readonly List<string> _modules = [];
    private readonly List<string> _asked = [];

    private FinderEnvironment Machine(bool windows = false) => new()
    {
        Variable = name => _variables.GetValueOrDefault(name),
        Load = Load,
        LoadedModules = () => _modules,
        ApplicationFolder = Folder("app"),
        Home = Folder("home"),
        CurrentFolder = Folder("current"),
        Windows = windows,
        Root = _root,
    };

    private ProbeTable Find(CudaLibrary library, int driverMajor = 0, bool windows = false) => new LibraryFinder(Machine(windows)).Find(library, driverMajor);

    private nint Load(string path)
    {
        _asked.Add(path);
        if (_loads.Contains(path)) return 1;
        throw new DllNotFoundException($"Unable to load shared library '{path}' or one of its dependencies. In order to help diagnose:\n{path}: file too short\nlib{path}: cannot open\n");
    }

    private string Folder(params string[] parts)
    {
        string folder = Path.Combine([_root, .. parts]);
        Directory.CreateDirectory(folder);
        return folder;
    }

    /// <summary>A file that is there but is no library.</summary>
    private string Junk(params string[] parts)
    {
        string file = Path.Combine([_root, .. parts]);
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllText(file, "junk");
        return file;
    }

    /// <summary>Files of NVRTC 13 in every place at once, in the order they must be tried.</summary>
    private List<string> Everywhere()
    {
        _variables["CONVLLAVA_CUDA_PATH"] = Folder("explicit");
        _variables["VIRTUAL_ENV"] = Folder("venv");
        _variables["CONDA_PREFIX"] = Folder("conda");
        _variables["PATH"] = $"{Folder("python", "bin")}:relative";
        Junk("python", "bin", "python3");
        _variables["CUDA_PATH"] = Folder("toolkit-a");
        _variables["CUDA_HOME"] = Folder("toolkit-b");
        string so = "libnvrtc.so.13";
        string loaded = Junk("somewhere", so + ".5.28");
        _modules.Add("/usr/lib/libc.so.6");
        _modules.Add(loaded);
        List<string> places =
        [
            Junk("explicit", so),
            Junk("explicit", "lib64", so),
            Junk("explicit", "site-packages", "nvidia", "cu13", "lib", so),
            loaded,
            Junk("app", so),
            Junk("app", "runtimes", "linux-x64", "native", so),
            Junk("venv", "lib", "python3.12", "site-packages", "nvidia", "cu13", "lib", so),
            Junk("venv", "lib", "python3.12", "site-packages", "nvidia", "cuda_nvrtc", "lib", so),
            Junk("conda", "lib", "python3.11", "site-packages", "nvidia", "cu13", "lib", so),
            Junk("python", "lib", "python3.10", "site-packages", "nvidia", "cu13", "lib", so),
            Junk("home", ".local", "lib", "python3.10", "site-packages", "nvidia", "cu13", "lib", so),
            Junk("usr", "local", "lib", "python3.10", "dist-packages", "nvidia", "cu13", "lib", so),
            Junk("usr", "lib", "python3", "dist-packages", "nvidia", "cu13", "lib", so),
            Junk("conda", "lib", so),
            Junk("home", "miniforge3", "lib", so),
            so,
            Junk("toolkit-a", "lib64", so),
            Junk("toolkit-a", "targets", "x86_64-linux", "lib", so),
            Junk("toolkit-b", "lib64", so),
            Junk("usr", "local", "cuda", "lib64", so),
            Junk("usr", "local", "cuda-13.10", "lib64", so),
            Junk("usr", "local", "cuda-13.2", "lib64", so),
            Junk("usr", "local", "cuda-12.9", "lib64", so),
            Junk("opt", "cuda", "lib64", so),
        ];
        return places;
    }

    [Fact]
    public void All_places_are_tried_in_the_documented_order()
    {
        List<string> expected = Everywhere();
        ProbeTable table = Find(CudaLibrary.Nvrtc, 13);
        Assert.False(table.Found);
        Assert.Equal(expected, _asked.Where(path => path.EndsWith("libnvrtc.so.13", StringComparison.Ordinal) || _modules.Contains(path)));
        Assert.All(table.Paths.Where(path => path.Attempted), path => Assert.Equal("file too short", path.Reason));
        string[] origins = ["CONVLLAVA_CUDA_PATH", "already loaded", "application", "pip wheel", "conda", "system loader", "CUDA_PATH", "CUDA_HOME", "toolkit"];
        Assert.Equal(origins, table.Paths.Select(path => path.Origin).Distinct());
    }

    [Fact]
    public void The_search_ends_at_the_first_that_loads()
    {
        List<string> places = Everywhere();
        foreach (string place in places)
        {
            _loads.Clear();
            _loads.UnionWith(places[places.IndexOf(place)..]);
            ProbeTable table = Find(CudaLibrary.Nvrtc, 13);
            Assert.Equal(place, table.Paths[^1].Path);
            Assert.Null(table.Paths[^1].Reason);
            Assert.Equal((true, 13), (table.Found, table.Major));
        }
    }

    [Fact]
    public void Majors_above_the_drivers_come_last_in_all_places()
    {
        _variables["CONVLLAVA_CUDA_PATH"] = Folder("explicit");
        string newer = Junk("explicit", "libnvrtc.so.13");
        string fitting = Junk("opt", "cuda", "lib64", "libnvrtc.so.12");
        _loads.UnionWith([newer, fitting]);
        Assert.Equal(fitting, Find(CudaLibrary.Nvrtc, 12).LoadedPath);
        Assert.Equal(newer, Find(CudaLibrary.Nvrtc, 13).LoadedPath);
        Assert.Equal(newer, Find(CudaLibrary.Nvrtc, 0).LoadedPath);
        Assert.Equal(newer, Find(CudaLibrary.Nvrtc, 14).LoadedPath);
        _loads.Remove(fitting);
        ProbeTable table = Find(CudaLibrary.Nvrtc, 12);
        Assert.Equal((newer, 13), (table.LoadedPath, table.Major));
        Assert.Contains(table.Paths, path => path.Path == fitting && path.Reason == "file too short");
    }

    [Fact]
    public void An_older_major_is_taken_where_it_lies_first()
    {
        string wheel = Junk("venv", "lib", "python3.12", "site-packages", "nvidia", "cublas", "lib", "libcublasLt.so.12");
        string toolkit = Junk("usr", "local", "cuda", "lib64", "libcublasLt.so.13");
        _variables["VIRTUAL_ENV"] = Folder("venv");
        _loads.UnionWith([wheel, toolkit]);
        Assert.Equal((wheel, 12), (Find(CudaLibrary.CublasLt, 13).LoadedPath, Find(CudaLibrary.CublasLt, 13).Major));
    }

    [Fact]
    public void The_driver_is_asked_of_the_system_and_never_of_wheels_or_toolkits()
    {
        Everywhere();
        foreach (string folder in (string[])["app", "venv/lib/python3.12/site-packages/nvidia/cu13/lib", "conda/lib", "toolkit-a/lib64", "usr/local/cuda/lib64/stubs"]) Junk(folder, "libcuda.so.1");
        string wsl = Junk("usr", "lib", "wsl", "lib", "libcuda.so.1");
        ProbeTable table = Find(CudaLibrary.Driver);
        Assert.Equal(["CONVLLAVA_CUDA_PATH", "system loader", "driver folder"], table.Paths.Select(path => path.Origin).Distinct());
        Assert.Equal(["libcuda.so.1", "libcuda.so", wsl], _asked);
        _loads.Add(wsl);
        Assert.Equal(wsl, Find(CudaLibrary.Driver).LoadedPath);
    }

    [Fact]
    public void A_driver_in_the_explicit_folder_wins()
    {
        _variables["CONVLLAVA_CUDA_PATH"] = "../explicit"; // from the working folder
        string driver = Junk("explicit", "libcuda.so.1");
        _loads.UnionWith([driver, "libcuda.so.1"]);
        Assert.Equal(driver, Find(CudaLibrary.Driver).LoadedPath);
    }

    [Fact]
    public void The_emulated_device_is_not_mixed_with_what_is_installed()
    {
        Everywhere();
        _variables["CONVLLAVA_EMULATED_DEVICE"] = "1";
        _loads.UnionWith(["libcuda.so.1", "libnvrtc.so.13"]);
        Assert.False(Find(CudaLibrary.Driver).Found);
        ProbeTable table = Find(CudaLibrary.Nvrtc, 13);
        Assert.False(table.Found);
        Assert.Equal(["CONVLLAVA_CUDA_PATH"], table.Paths.Select(path => path.Origin).Distinct());
        Assert.True(Machine().Emulated);
        _variables["CONVLLAVA_EMULATED_DEVICE"] = "0";
        Assert.False(Machine().Emulated);
    }

    [Fact]
    public void A_library_of_the_process_is_used_again_whatever_its_full_name()
    {
        string builtins = Junk("torch", "libnvrtc-builtins.so.12.8");
        string loaded = Junk("torch", "libnvrtc.so.12");
        _modules.AddRange([builtins, loaded]);
        _loads.UnionWith([builtins, loaded, "libnvrtc.so.13"]);
        ProbeTable table = Find(CudaLibrary.Nvrtc, 13);
        Assert.Equal((loaded, 12, "already loaded"), (table.LoadedPath, table.Major, table.Paths[^1].Origin));
    }

    [Fact]
    public void A_name_given_to_the_system_is_resolved_to_its_file()
    {
        _loads.Add("libcuda.so.1");
        string real = "/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05";
        FinderEnvironment machine = Machine() with { LoadedModules = () => _asked.Count == 0 ? [] : ["/usr/lib/libcudart.so.12", real] };
        ProbeTable table = new LibraryFinder(machine).Find(CudaLibrary.Driver, 0);
        Assert.Equal(real, table.LoadedPath);
        Assert.Equal("libcuda.so.1", table.Paths[^1].Path);
    }

    [Fact]
    public void Nothing_is_loaded_from_the_working_folder()
    {
        Junk("current", "libnvrtc.so.13");
        Junk("current", ".venv", "lib", "python3.12", "site-packages", "nvidia", "cu13", "lib", "libnvrtc.so.13");
        Find(CudaLibrary.Nvrtc);
        Assert.DoesNotContain(_asked, path => path.Contains("/current/", StringComparison.Ordinal));
    }

    [Fact]
    public void Windows_has_its_own_names_and_folders()
    {
        _variables["VIRTUAL_ENV"] = Folder("venv");
        _variables["CUDA_PATH"] = Folder("toolkit");
        _variables["ProgramFiles"] = Folder("programs");
        string wheel = Junk("venv", "Lib", "site-packages", "nvidia", "cu13", "bin", "x86_64", "nvrtc64_130_0.dll");
        string older = Junk("venv", "Lib", "site-packages", "nvidia", "cuda_nvrtc", "bin", "nvrtc64_120_0.dll");
        string torch = Junk("venv", "Lib", "site-packages", "torch", "lib", "nvrtc64_120_0.dll");
        string toolkit = Junk("toolkit", "bin", "x64", "nvrtc64_130_0.dll");
        string installed = Junk("programs", "NVIDIA GPU Computing Toolkit", "CUDA", "v13.0", "bin", "x64", "nvrtc64_130_0.dll");
        Find(CudaLibrary.Nvrtc, 13, windows: true);
        Assert.Equal([wheel, older, torch, "nvrtc64_130_0.dll", "nvrtc64_120_0.dll", toolkit, installed], _asked);
        _asked.Clear();
        Find(CudaLibrary.Driver, 0, windows: true);
        Assert.Equal(["nvcuda.dll"], _asked);
        _asked.Clear();
        Find(CudaLibrary.CublasLt, 12, windows: true);
        Assert.Equal(["cublasLt64_12.dll", "cublasLt64_13.dll"], _asked);
    }

    [Fact]
    public void The_summary_tells_the_file_that_does_not_load()
    {
        _variables["CUDA_PATH"] = Folder("toolkit");
        string broken = Junk("toolkit", "lib64", "libcublasLt.so.13");
        ProbeTable table = Find(CudaLibrary.CublasLt);
        Assert.Contains("cuBLASLt was not found", table.Summary);
        Assert.Contains($"{broken}: file too short", table.Summary);
        Assert.DoesNotContain('\n', table.Summary);
        var error = new CudaLibraryNotFoundException(table);
        Assert.Contains("convllava doctor", error.Message);
        Assert.Same(table, error.Table);
        Assert.Contains($"  {broken} (CUDA_PATH): file too short", table.ToText());
    }

    /// <summary>What the real loader says about real junk ends up in the table.</summary>
    [Fact]
    public void The_loaders_own_words_are_kept()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "The words are glibc's.");
        _variables["CUDA_PATH"] = Folder("toolkit");
        string shortFile = Junk("toolkit", "lib64", "libnvrtc.so.13");
        string wrong = Junk("toolkit", "lib", "libnvrtc.so.13");
        File.WriteAllText(wrong, new string('x', 5000));
        // The system's own loader for files; bare names would find what another test of this process has loaded.
        FinderEnvironment fake = Machine();
        FinderEnvironment machine = fake with { Load = name => Path.IsPathRooted(name) ? FinderEnvironment.Current.Load(name) : fake.Load(name) };
        ProbeTable table = new LibraryFinder(machine).Find(CudaLibrary.Nvrtc, 13);
        Assert.Equal("file too short", table.Paths.Single(path => path.Path == shortFile).Reason);
        Assert.Equal("invalid ELF header", table.Paths.Single(path => path.Path == wrong).Reason);
    }
}
