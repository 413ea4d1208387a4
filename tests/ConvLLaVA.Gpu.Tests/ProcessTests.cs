using ConvLLaVA.Cli.Tests;
using Xunit;

namespace ConvLLaVA.Gpu.Tests;

/// <summary>The program in a process of its own, where libraries are missing for good: which ones a process has is settled at its first look.</summary>
public sealed class ProcessTests : IDisposable
{
    private readonly string _scratch = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public ProcessTests() => Emulator.Start();

    public void Dispose() => Directory.Delete(_scratch, true);

    [Fact]
    public void Without_a_compiler_a_complete_kernel_cache_is_enough_and_an_incomplete_one_is_not()
    {
        string cache = Path.Combine(_scratch, "cache"), libraries = Libraries("libcuda.so.1", "libcublasLt.so.13", "include");
        Run(libraries, cache).IsBadInput(".cu", "is not in the kernel cache", cache, "cannot be compiled", "NVRTC was not found");
        Directory.CreateDirectory(cache);
        Directory.CreateDirectory(Emulator.KernelCache);
        foreach (string file in Directory.GetFiles(Emulator.KernelCache)) File.Copy(file, Path.Combine(cache, Path.GetFileName(file))); // spares most of the compiling
        string answer = Run(Emulator.Folder, cache).Succeeds();
        Assert.Equal(answer, Run(libraries, cache).Succeeds());
        foreach (string file in Directory.GetFiles(cache, "sample-*")) File.Delete(file);
        Run(libraries, cache).IsBadInput("sample.cu", cache);
        Assert.Equal(answer, Run(Emulator.Folder, cache).Succeeds());
    }

    /// <summary>Nothing can be compiled without NVRTC, so what runs without it found everything.</summary>
    [Fact]
    public void A_cache_built_for_quantised_weights_has_every_kernel_of_them()
    {
        string cache = Path.Combine(_scratch, "cache"), libraries = Libraries("libcuda.so.1", "libcublasLt.so.13", "include");
        Start(Emulator.Folder, cache, [], "kernels", "build", "--model", Fixture.Tiny, "--dtype", "float32", "--arch", "sm_90a", "--quantize", "q4", "--out", cache).Succeeds();
        string[] built = Directory.GetFiles(cache);
        string answer = Run(libraries, cache, ("quantize", "q4")).Succeeds();
        Assert.Equal(answer, Run(Emulator.Folder, cache, ("quantize", "q4")).Succeeds());
        Assert.Equal(built.Order(), Directory.GetFiles(cache).Order());
        Run(libraries, cache, ("quantize", "q8")).IsBadInput("WEIGHTS=1", "is not in the kernel cache");
        foreach (string file in Directory.GetFiles(cache, "dequantise-*")) File.Delete(file);
        Run(libraries, cache, ("quantize", "q4")).IsBadInput("dequantise.cu", "WEIGHTS=3", "is not in the kernel cache");
        Assert.Equal(Run(libraries, cache).Succeeds(), Run(Emulator.Folder, cache).Succeeds()); // plain weights never need them
    }

    [Fact]
    public void Without_a_driver_a_GPU_that_is_asked_for_is_refused()
        => Run(Libraries(), _scratch).IsBadInput("device cuda", "NVIDIA's driver was not found", "convllava doctor");

    [Fact]
    public void Without_cuBLASLt_too() => Run(Libraries("libcuda.so.1", "libnvrtc.so.13", "include"), _scratch).IsBadInput("device cuda", "cuBLASLt was not found");

    [Theory]
    [InlineData("CONVLLAVA_EMULATED_CAPABILITY", "7.0", "7.5 or newer")]
    [InlineData("CONVLLAVA_EMULATED_DRIVER_VERSION", "11080", "supports CUDA 11.8")]
    [InlineData("CONVLLAVA_EMULATED_DRIVER_VERSION", "12080", "too old for every")]
    public void A_device_or_driver_too_old_is_refused(string variable, string value, string words)
        => Run(Emulator.Folder, _scratch, (variable, value)).IsBadInput("device cuda", words);

    [Fact]
    public void Bfloat16_on_Turing_is_refused()
        => Run(Emulator.Folder, _scratch, ("CONVLLAVA_EMULATED_CAPABILITY", "7.5"), ("dtype", "bfloat16")).IsBadInput("7.5", "float16");

    [Fact]
    public void A_mistake_in_an_overriding_kernel_is_shown()
    {
        string kernels = Directory.CreateDirectory(Path.Combine(_scratch, "kernels")).FullName;
        File.WriteAllText(Path.Combine(kernels, "sample.cu"), "#include \"device.cuh\"\nKERNEL(256, 4) sample(const float* x) { int y = \"text\"; }\n");
        CommandLine result = Run(Emulator.Folder, _scratch, ("CONVLLAVA_KERNELS", kernels));
        Assert.Equal(2, result.ExitCode);
        Assert.Contains($"{Path.Combine(kernels, "sample.cu")}", result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_device_without_room_fails_in_one_sentence()
    {
        CommandLine result = Run(Emulator.Folder, Emulator.KernelCache, ("CONVLLAVA_EMULATED_MEMORY", "32M"));
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("no room for weights", Assert.Single(result.Error.Split('\n', StringSplitOptions.RemoveEmptyEntries)), StringComparison.Ordinal);
    }

    /// <summary>A folder with some of the emulated device's libraries.</summary>
    private string Libraries(params string[] names)
    {
        string folder = Directory.CreateDirectory(Path.Combine(_scratch, "libraries")).FullName;
        foreach (string name in names) File.CreateSymbolicLink(Path.Combine(folder, name), Path.Combine(Emulator.Folder, name));
        return folder;
    }

    /// <summary>Five tokens of the tiny model. Changes are to the environment, or to the options <c>dtype</c> and <c>quantize</c>.</summary>
    private static CommandLine Run(string libraries, string cache, params (string Name, string Value)[] changes)
    {
        Dictionary<string, string> options = changes.Where(change => change.Name is "dtype" or "quantize").ToDictionary();
        options.TryAdd("dtype", "float32");
        return Start(libraries, cache, [.. changes.Where(change => !options.ContainsKey(change.Name))],
            ["run", "--model", Fixture.Tiny, "--raw", "Tell me", "-n", "5", "--device", "cuda", "--kv-tokens", "512", .. options.SelectMany(option => (string[])[$"--{option.Key}", option.Value])]);
    }

    private static CommandLine Start(string libraries, string cache, (string Name, string Value)[] changes, params string[] arguments)
    {
        var environment = new Dictionary<string, string?>
        {
            ["CONVLLAVA_EMULATED_DEVICE"] = "1",
            ["CONVLLAVA_CUDA_PATH"] = libraries,
            ["CONVLLAVA_KERNEL_CACHE"] = cache,
            ["CONVLLAVA_KERNELS"] = null,
        };
        foreach ((string name, string value) in changes) environment[name] = value;
        return CommandLine.RunIn(environment, "", arguments);
    }
}
