using System.Text;
using Xunit;

namespace ConvLLaVA.Cuda.Tests;

/// <summary>NVIDIA's own compiler through the engine's finder and bindings.</summary>
public sealed class NvrtcTests
{
    private const string Kernel = """
        #include "vocabulary.cuh"
        extern "C" __global__ void scale(float* x, float factor, int n)
        {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < n) x[i] = twice(x[i]) * factor + OFFSET;
        }
        """;

    private static readonly NvrtcHeader[] Headers = [new("vocabulary.cuh", "template <typename T> __device__ T twice(T x) { return x + x; }\n")];

    private static NvrtcTarget Code(int architecture) => new($"sm_{architecture}", architecture, true);

    private static void NeedNvrtc()
    {
        NvidiaFolder.Need();
        Assert.True(CudaLibraries.Probe(CudaLibrary.Nvrtc).Found, CudaLibraries.Probe(CudaLibrary.Nvrtc).ToText());
    }

    [Fact]
    public void The_finder_gives_the_real_compiler()
    {
        NeedNvrtc();
        ProbeTable table = CudaLibraries.Probe(CudaLibrary.Nvrtc);
        Assert.Equal(13, table.Major);
        Assert.Equal("CONVLLAVA_CUDA_PATH", table.Paths[^1].Origin);
        Assert.StartsWith(NvidiaFolder.Place!, table.LoadedPath); // links are followed
        Assert.Equal(new Version(13, 5), NvrtcCompiler.Version);
        Assert.Equal(NvrtcCompiler.SupportedArchitectures.Order(), NvrtcCompiler.SupportedArchitectures);
        Assert.Empty(((int[])[75, 80, 86, 89, 90, 100]).Except(NvrtcCompiler.SupportedArchitectures));
        Assert.True(CudaLibraries.Exports(CudaLibrary.Nvrtc, "nvrtcGetCUBIN"));
        Assert.False(CudaLibraries.Exports(CudaLibrary.Nvrtc, "nvrtcGetCoffee"));
    }

    [Theory]
    [InlineData("sm_75")]
    [InlineData("sm_80")]
    [InlineData("sm_90a")]
    [InlineData("sm_100a")]
    public void A_kernel_with_a_header_becomes_machine_code(string architecture)
    {
        NeedNvrtc();
        NvrtcImage image = NvrtcCompiler.Compile(Kernel, "scale.cu", Headers, new NvrtcTarget(architecture, 0, true), ["--std=c++17", "-DOFFSET=1.0f", "--ptxas-options=-v"]);
        Assert.Equal([0x7f, (byte)'E', (byte)'L', (byte)'F'], image.Bytes[..4]);
        Assert.Contains("scale", Encoding.Latin1.GetString(image.Bytes));
        Assert.Contains("registers", image.Log);
    }

    [Fact]
    public void A_virtual_architecture_gives_text()
    {
        NeedNvrtc();
        NvrtcImage image = NvrtcCompiler.Compile(Kernel, "scale.cu", Headers, new NvrtcTarget("compute_80", 80, false), ["-DOFFSET=1.0f"]);
        string text = Encoding.UTF8.GetString(image.Bytes);
        Assert.Contains(".target sm_80", text);
        Assert.Contains(".entry scale", text);
        Assert.DoesNotContain('\0', text);
    }

    [Fact]
    public void An_error_names_file_and_line()
    {
        NeedNvrtc();
        var error = Assert.Throws<NvrtcCompilationException>(() => NvrtcCompiler.Compile(Kernel, "scale.cu", Headers, Code(80)));
        Assert.Equal("scale.cu", error.SourceName);
        Assert.Contains("scale.cu(5): error: identifier \"OFFSET\" is undefined", error.Log);
        Assert.Contains(error.Log, error.Message);
        Assert.Equal(NvrtcResult.Compilation, error.CompilerResult);
        Assert.False(error.IsSticky);
    }

    [Fact]
    public void A_header_that_was_not_given_is_named()
    {
        NeedNvrtc();
        var error = Assert.Throws<NvrtcCompilationException>(() => NvrtcCompiler.Compile(Kernel, "scale.cu", null, Code(80)));
        Assert.Contains("vocabulary.cuh", error.Log);
    }

    [Fact]
    public void An_unknown_option_is_refused()
    {
        NeedNvrtc();
        var error = Assert.Throws<NvrtcCompilationException>(() => NvrtcCompiler.Compile(Kernel, "scale.cu", Headers, Code(80), ["--frobnicate"]));
        Assert.Equal(NvrtcResult.InvalidOption, error.CompilerResult);
        Assert.Contains("frobnicate", error.Message);
    }

    [Fact]
    public void Names_of_templates_can_be_asked_for()
    {
        NeedNvrtc();
        using var program = new NvrtcProgram("template <int N> __global__ void fill(int* x) { x[threadIdx.x] = N; }", "fill.cu");
        program.AddNameExpression("fill<3>");
        program.Compile(["--gpu-architecture=sm_80"]);
        Assert.Equal("_Z4fillILi3EEvPi", program.GetLoweredName("fill<3>"));
        Assert.NotEmpty(program.GetCubin());
    }

    [Fact]
    public void Programs_compile_in_parallel()
    {
        NeedNvrtc();
        Parallel.For(0, 4, i =>
        {
            NvrtcImage image = NvrtcCompiler.Compile($"extern \"C\" __global__ void k{i}(int* x) {{ x[0] = {i}; }}", $"k{i}.cu", null, Code(80));
            Assert.Contains($"k{i}", Encoding.Latin1.GetString(image.Bytes));
        });
    }

    [Fact]
    public void A_disposed_program_refuses()
    {
        NeedNvrtc();
        var program = new NvrtcProgram(Kernel, "scale.cu", Headers);
        program.Dispose();
        program.Dispose();
        Assert.Throws<ObjectDisposedException>(() => program.Compile([]));
    }

    [Fact]
    public void The_trial_succeeds()
    {
        NeedNvrtc();
        NvrtcTrial trial = NvrtcCompiler.Trial();
        Assert.Null(trial.Problem);
        Assert.True(trial.Bytes > 500);
    }

    /// <summary>The other major, in a process of its own because a process has one NVRTC.</summary>
    [Fact]
    public void NVRTC_12_compiles_as_well()
    {
        var report = Doctor.Json(("CONVLLAVA_CUDA_PATH", NvidiaFolder.NeedNvrtc12())).Library("nvrtc");
        Assert.Equal("12.9", report.Text("version"));
        Assert.EndsWith(Path.Combine("site-packages", "nvidia", "cuda_nvrtc", "lib", "libnvrtc.so.12"), report.Text("path"));
        Assert.Null(report.Text("problem"));
        Assert.Matches(@"^sm_75, \d{3,} bytes$", report.Text("trial"));
        Assert.Contains(50, report.GetProperty("architectures").EnumerateArray().Select(architecture => architecture.GetInt32()));
    }

    [Theory]
    [InlineData(80, "sm_80", true)]
    [InlineData(89, "sm_89", true)]
    [InlineData(87, "sm_86", true)] // code of the same major, an earlier minor
    [InlineData(103, "sm_100", true)]
    [InlineData(130, "compute_120", false)] // newer than the compiler
    public void The_target_fits_the_device(int device, string name, bool code)
    {
        NvrtcTarget target = NvrtcTarget.For(device, [75, 80, 86, 89, 90, 100, 120]);
        Assert.Equal((name, code), (target.Name, target.IsMachineCode));
    }

    [Fact]
    public void Features_of_one_architecture_alone() => Assert.Equal("sm_90a", NvrtcTarget.For(90, [80, 90], specific: true).Name);

    [Fact]
    public void They_do_not_exist_before_Hopper() => Assert.Equal("sm_80", NvrtcTarget.For(80, [80, 90], specific: true).Name);

    [Fact]
    public void A_device_that_the_compiler_has_given_up()
    {
        CudaException error = Assert.Throws<CudaException>(() => NvrtcTarget.For(61, [75, 80]));
        Assert.Contains("sm_61", error.Message);
    }
}
