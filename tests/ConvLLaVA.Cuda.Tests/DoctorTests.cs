using System.Text.Json;
using Xunit;

namespace ConvLLaVA.Cuda.Tests;

/// <summary><c>convllava doctor</c> and the reasons why a GPU cannot be used, each in a process of its own.</summary>
public sealed class DoctorTests
{
    /// <summary>Hides whatever is installed on the machine that runs the tests: the emulated device is looked for in one folder only.</summary>
    private static readonly (string, string) Isolated = ("CONVLLAVA_EMULATED_DEVICE", "1");

    private readonly string _folder = TestFolder.Create("doctor");

    private string FakeMachine(bool cublasLt = true)
    {
        FakeLibraries.Need();
        FakeLibraries.CopyTo(_folder, cublasLt);
        return _folder;
    }

    /// <summary>The fake driver and cuBLASLt, and a real NVRTC.</summary>
    private string CompleteMachine()
    {
        string folder = FakeMachine();
        File.CreateSymbolicLink(Path.Combine(folder, "libnvrtc.so.13"), Path.Combine(NvidiaFolder.Need(), "site-packages", "nvidia", "cu13", "lib", "libnvrtc.so.13"));
        return folder;
    }

    [Fact]
    public void Nothing_at_all()
    {
        Dictionary<string, string> nothing = new() { ["CONVLLAVA_CUDA_PATH"] = _folder, ["CONVLLAVA_EMULATED_DEVICE"] = "1", ["CONVLLAVA_KERNEL_CACHE"] = Path.Combine(_folder, "cache") };
        string text = Doctor.Run(nothing);
        Assert.Contains("driver             not found, see below", text);
        Assert.Contains($"  {Path.Combine(_folder, "libcuda.so.1")} (CONVLLAVA_CUDA_PATH): no such file", text);
        Assert.Contains($"  {Path.Combine(_folder, "libnvrtc.so.12")} (CONVLLAVA_CUDA_PATH): no such file", text);
        Assert.Contains("NVRTC was looked for here:", text);
        Assert.Contains("cuBLASLt was looked for here:", text);
        Assert.Contains("--device auto      takes the CPU", text);
        Assert.Contains($"{Path.Combine(_folder, "cache")} (not there yet)", text);

        JsonElement report = JsonDocument.Parse(Doctor.Run(nothing, "--json")).RootElement;
        Assert.False(report.GetProperty("cuda").GetProperty("usable").GetBoolean());
        Assert.StartsWith("NVIDIA's driver was not found in", report.Reason());
        Assert.Empty(report.GetProperty("cuda").GetProperty("devices").EnumerateArray());
        Assert.All((string[])["driver", "nvrtc", "cublasLt"], name =>
        {
            Assert.False(report.Library(name).GetProperty("found").GetBoolean());
            Assert.NotEmpty(report.Library(name).GetProperty("tried").EnumerateArray());
        });
        Assert.Equal("cpu", report.GetProperty("auto").Text("backend"));
        Assert.True(report.GetProperty("cpu").GetProperty("threads").GetInt32() > 0);
        Assert.NotEqual("", report.GetProperty("cpu").Text("path"));
        Assert.Equal("absent", report.GetProperty("kernel_cache").Text("state"));
    }

    [Fact]
    public void No_driver_but_a_compiler()
    {
        JsonElement report = Doctor.Json(("CONVLLAVA_CUDA_PATH", NvidiaFolder.Need()));
        Assert.SkipWhen(report.Library("driver").GetProperty("found").GetBoolean(), "This machine has a driver.");
        Assert.Matches("^NVIDIA's driver was not found in [0-9]+ places; libcuda.so.1: cannot open shared object file", report.Reason());
        Assert.Equal("13.5", report.Library("nvrtc").Text("version"));
        Assert.Matches(@"^sm_75, \d{3,} bytes$", report.Library("nvrtc").Text("trial"));
        string text = Doctor.Run(new Dictionary<string, string> { ["CONVLLAVA_CUDA_PATH"] = NvidiaFolder.Need() });
        Assert.Contains("compiles for sm_75, 80, 86", text);
        Assert.Contains("libcuda.so.1 (system loader): cannot open shared object file: No such file or directory", text);
    }

    [Fact]
    public void The_toolkits_stub_in_place_of_the_driver()
    {
        string stub = Path.Combine(NvidiaFolder.Need(), "stub");
        JsonElement report = Doctor.Json(("CONVLLAVA_CUDA_PATH", stub));
        Assert.True(report.Library("driver").GetProperty("found").GetBoolean());
        Assert.Equal($"{Path.Combine(stub, "libcuda.so.1")} is the CUDA toolkit's stub and not NVIDIA's driver; install the driver, or take the stub's folder off the library path.", report.Reason());
    }

    [Fact]
    public void A_complete_machine()
    {
        string folder = CompleteMachine();
        JsonElement report = Doctor.Json(("CONVLLAVA_CUDA_PATH", folder), ("FAKE_CUDA_DEVICES", "2"));
        Assert.Null(report.Reason());
        Assert.True(report.GetProperty("cuda").GetProperty("usable").GetBoolean());
        JsonElement[] devices = [.. report.GetProperty("cuda").GetProperty("devices").EnumerateArray()];
        Assert.Equal(2, devices.Length);
        Assert.Equal(("Fake GPU 1", "9.0", 8L << 30, 132), (devices[1].Text("name"), devices[1].Text("compute_capability"), devices[1].GetProperty("memory_bytes").GetInt64(), devices[1].GetProperty("multiprocessors").GetInt32()));
        Assert.Equal(("13.0", "13.5", "13.1.0"), (report.Library("driver").Text("version"), report.Library("nvrtc").Text("version"), report.Library("cublasLt").Text("version")));
        Assert.Equal(Path.Combine(folder, "libcublasLt.so.13"), report.Library("cublasLt").Text("path"));
        Assert.Contains("Fake GPU 0", report.GetProperty("auto").Text("reason"));
        string text = Doctor.Run(new Dictionary<string, string> { ["CONVLLAVA_CUDA_PATH"] = folder });
        Assert.Contains("GPU 0              Fake GPU 0, compute capability 9.0, 8.0 GiB, 132 multiprocessors", text);
        Assert.Contains($"driver             CUDA 13.0, {Path.Combine(folder, "libcuda.so.1")} (CONVLLAVA_CUDA_PATH)", text);
        Assert.DoesNotContain("looked for here", text);
    }

    [Fact]
    public void An_emulated_device_is_called_that()
    {
        string folder = CompleteMachine();
        Dictionary<string, string> environment = new() { ["CONVLLAVA_CUDA_PATH"] = folder, ["CONVLLAVA_EMULATED_DEVICE"] = "1" };
        string text = Doctor.Run(environment);
        Assert.Contains("emulated device 0  Fake GPU 0", text);
        Assert.DoesNotContain("\nGPU 0 ", text);
        Assert.Contains("usable (emulated device)", text);
        Assert.Contains("takes the CPU: the device is emulated", text);
        Assert.True(JsonDocument.Parse(Doctor.Run(environment, "--json")).RootElement.GetProperty("cuda").GetProperty("emulated").GetBoolean());
    }

    [Theory]
    [InlineData("FAKE_CUDA_INIT", "100", "finds no GPU")]
    [InlineData("FAKE_CUDA_DEVICES", "0", "finds no GPU")]
    [InlineData("FAKE_CUDA_INIT", "803", "cuInit failed with CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)")]
    [InlineData("FAKE_CUDA_INIT", "34", "is the CUDA toolkit's stub")]
    [InlineData("FAKE_CUDA_VERSION", "11080", "supports CUDA 11.8, at least 12.0 is needed")]
    [InlineData("FAKE_CUDA_VERSION", "12080", "NVIDIA's driver supports CUDA 12.8 and is too old for every NVRTC found (")]
    [InlineData("FAKE_CUDA_CC", "61", "No GPU here has compute capability 7.5 or newer; found: Fake GPU 0 (6.1).")]
    public void A_machine_that_cannot_be_used(string variable, string value, string reason)
    {
        JsonElement report = Doctor.Json(("CONVLLAVA_CUDA_PATH", CompleteMachine()), Isolated, (variable, value));
        Assert.Contains(reason, report.Reason());
        Assert.DoesNotContain('\n', report.Reason()!);
        Assert.Equal("cpu", report.GetProperty("auto").Text("backend"));
        Assert.Equal(report.Reason(), report.GetProperty("auto").Text("reason"));
    }

    [Fact]
    public void A_driver_of_12_takes_the_compiler_of_12_although_13_comes_first()
    {
        string folder = CompleteMachine();
        string twelve = Path.Combine(NvidiaFolder.NeedNvrtc12(), "site-packages", "nvidia", "cuda_nvrtc", "lib", "libnvrtc.so.12");
        File.CreateSymbolicLink(Path.Combine(folder, "libnvrtc.so.12"), twelve);
        JsonElement report = Doctor.Json(("CONVLLAVA_CUDA_PATH", folder), Isolated, ("FAKE_CUDA_VERSION", "12080"));
        Assert.Equal(("12.9", twelve), (report.Library("nvrtc").Text("version"), report.Library("nvrtc").Text("path")));
        Assert.Matches("too old for every cuBLASLt found", report.Reason()); // the fake one is of 13
    }

    [Fact]
    public void A_compiler_without_its_builtins()
    {
        string folder = FakeMachine();
        File.Copy(Path.Combine(NvidiaFolder.Need(), "site-packages", "nvidia", "cu13", "lib", "libnvrtc.so.13"), Path.Combine(folder, "libnvrtc.so.13"));
        JsonElement report = Doctor.Json(("CONVLLAVA_CUDA_PATH", folder));
        Assert.StartsWith($"NVRTC ({Path.Combine(folder, "libnvrtc.so.13")}) cannot compile: its builtins library (libnvrtc-builtins) must lie beside it", report.Reason());
        Assert.Contains("libnvrtc-builtins.so.13.5", report.Library("nvrtc").Text("problem"));
    }

    [Fact]
    public void No_cuBLASLt()
    {
        FakeMachine(cublasLt: false);
        File.CreateSymbolicLink(Path.Combine(_folder, "libnvrtc.so.13"), Path.Combine(NvidiaFolder.Need(), "site-packages", "nvidia", "cu13", "lib", "libnvrtc.so.13"));
        JsonElement report = Doctor.Json(("CONVLLAVA_CUDA_PATH", _folder), Isolated);
        Assert.StartsWith("cuBLASLt was not found", report.Reason());
    }

    [Fact]
    public void A_driver_that_is_something_else()
    {
        NvidiaFolder.Need();
        File.Copy(Path.Combine(NvidiaFolder.Need(), "site-packages", "nvidia", "cu13", "lib", "libnvrtc-builtins.so.13.5"), Path.Combine(_folder, "libcuda.so.1"));
        JsonElement report = Doctor.Json(("CONVLLAVA_CUDA_PATH", _folder));
        Assert.StartsWith("A library is too old or not NVIDIA's:", report.Reason());
    }

    [Fact]
    public void A_cache_folder_that_is_there()
    {
        JsonElement report = Doctor.Json(("CONVLLAVA_CUDA_PATH", _folder), ("CONVLLAVA_EMULATED_DEVICE", "1"), ("XDG_CACHE_HOME", _folder));
        Assert.Equal(Path.Combine(_folder, "convllava", "kernels"), report.GetProperty("kernel_cache").Text("folder"));
        report = Doctor.Json(("CONVLLAVA_CUDA_PATH", _folder), ("CONVLLAVA_EMULATED_DEVICE", "1"), ("CONVLLAVA_KERNEL_CACHE", _folder));
        Assert.Equal("writable", report.GetProperty("kernel_cache").Text("state"));
    }

    [Fact]
    public void A_CPU_path_that_does_not_exist_is_reported_and_nothing_more()
    {
        JsonElement report = Doctor.Json(("CONVLLAVA_CUDA_PATH", _folder), ("CONVLLAVA_EMULATED_DEVICE", "1"), ("CONVLLAVA_CPU", "sse9"));
        Assert.Contains("CONVLLAVA_CPU=sse9 is not known", report.GetProperty("cpu").Text("problem"));
    }
}
