using System.Text.Json;
using Xunit;

namespace ConvLLaVA.Cli.Tests;

/// <summary><c>convllava kernels</c> and <c>selftest bindings</c>: what can be said and done about a GPU where there is none.</summary>
public sealed class KernelsTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    /// <summary>NVIDIA's compiler beside the checkout; skips the test where it is absent.</summary>
    private static Dictionary<string, string?> WithCompiler()
    {
        string? named = Environment.GetEnvironmentVariable("CONVLLAVA_CUDA_PATH");
        string folder = named ?? Path.Combine(Repository.Shared ?? "", "cuda");
        if (!Directory.Exists(Path.Combine(folder, "site-packages"))) Assert.Skip("NVIDIA's NVRTC is not at hand (cuda/site-packages in the shared folder).");
        return new() { ["CONVLLAVA_CUDA_PATH"] = folder, ["CONVLLAVA_EMULATED_DEVICE"] = null };
    }

    /// <summary>A machine without NVIDIA's libraries in the places that the environment names.</summary>
    private Dictionary<string, string?> Without() => new()
    {
        ["CONVLLAVA_CUDA_PATH"] = _folder,
        ["VIRTUAL_ENV"] = null,
        ["CONDA_PREFIX"] = null,
        ["CUDA_PATH"] = null,
        ["CUDA_HOME"] = null,
        ["LD_LIBRARY_PATH"] = null,
        ["CONVLLAVA_EMULATED_DEVICE"] = null,
    };

    [Fact]
    public void List_names_every_specialisation()
    {
        string output = CommandLine.Run("kernels", "list", "--preset", "tiny", "--arch", "sm_80,sm_90a", "--dtype", "float16", "--dtype", "bf16").Succeeds();
        Assert.Contains("HEAD_DIM=32", output);
        Assert.Contains("STORAGE_F16=1", output);
        Assert.Contains("STORAGE_BF16=1", output);
        foreach (string kernel in (string[])["gemv.cu", "gemv_qkv.cu", "attention_prefill.cu", "attention_decode.cu", "depthwise_norm.cu", "gather_patches.cu"]) Assert.Contains(kernel, output);
        string[] lines = output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(0, (lines.Length - 1) % 4); // two types on two architectures
        Assert.Equal(lines.Length, lines.Distinct().Count());
    }

    /// <summary>A model that is quantised while it is loaded, and a folder of one, bring the kernels of their form; <c>int8</c> is
    /// <c>q8-row</c> there.</summary>
    [Fact]
    public void List_of_a_quantised_model_has_its_kernels_besides()
    {
        string model = Path.Combine(Repository.Fixtures, "models", "two-shards"), written = Path.Combine(_folder, "written");
        string[] plain = List(model), q4 = List(model, "--quantize", "q4"), besides = [.. q4.Except(plain)];
        Assert.Equal(plain, q4.Intersect(plain));
        Assert.All(besides, line => Assert.Contains("WEIGHTS=3", line));
        Assert.Equal(1 + (4 * 4), besides.Length); // 1, 2, 4 or 8 rows of four products
        Assert.Single(besides, line => line.StartsWith("dequantise.cu", StringComparison.Ordinal));
        Assert.Equal(q4, List(model, "--quantize", "q4", "--quantize-vision", "--quantize-lm-head"));
        Assert.Equal(List(model, "--quantize", "q8-row"), List(model, "--quantize", "int8"));
        CommandLine.Run("quantize", model, "--to", "q4", "--out", written).Succeeds();
        Assert.Equal(q4, List(written));
        CommandLine.Run("kernels", "list", "--model", written, "--quantize", "q8").IsBadInput("quantised already", "q4");
        CommandLine.Run("kernels", "list", "--quantize-vision").IsBadInput("--quantize-vision", "--quantize does not say how");

        static string[] List(string model, params string[] options)
            => CommandLine.Run(["kernels", "list", "--model", model, "--arch", "sm_80", "--dtype", "float16", .. options]).Succeeds().Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }

    [Theory]
    [InlineData]
    [InlineData("--quantize", "q4")]
    public void Build_fills_a_cache_and_reports(params string[] quantize)
    {
        Dictionary<string, string?> compiler = WithCompiler();
        string cache = Path.Combine(_folder, "cache"), report = Path.Combine(_folder, "report.json");
        CommandLine.RunIn(compiler, "", ["kernels", "build", "--preset", "tiny", "--arch", "sm_80", "--dtype", "float16", "--out", cache, "--report", report, "--gpu", "a100", .. quantize]).Succeeds();
        JsonElement found = JsonDocument.Parse(File.ReadAllText(report)).RootElement;
        JsonElement[] rows = [.. found.GetProperty("rows").EnumerateArray()];
        Assert.Equal("A100 SXM 80 GB", found.GetProperty("gpu").GetString());
        Assert.All(rows, row => Assert.InRange(row.GetProperty("registers").GetInt32(), 8, 255));
        Assert.All(rows, row => Assert.InRange(row.GetProperty("occupancy_percent").GetInt32(), 1, 100));
        Assert.All(rows, row => Assert.True(row.GetProperty("threads").GetInt32() > 0, row.ToString()));
        JsonElement decode = rows.Single(row => row.GetProperty("kernel").GetString() == "attention_decode");
        Assert.Equal(2, decode.GetProperty("launches").GetInt32()); // one a layer
        Assert.True(decode.GetProperty("bound_ms").GetDouble() > 0);
        string[] files = Directory.GetFiles(cache);
        Assert.All(files, file => Assert.Contains(".sm_80.nvrtc", file));
        Assert.Equal(quantize.LastOrDefault(), found.GetProperty("quantized").GetString());
        Assert.Equal(quantize.Length > 0 ? 1 : 0, rows.Count(row => row.GetProperty("kernel").GetString() == "dequantise" && row.GetProperty("bytes").GetInt64() > 0));
        string list = CommandLine.Run(["kernels", "list", "--preset", "tiny", "--arch", "sm_80", "--dtype", "float16", .. quantize]).Succeeds();
        Assert.Equal(list.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length - 1, files.Length);
    }

    [Fact]
    public void Build_without_a_compiler_says_where_it_looked()
        => CommandLine.RunIn(Without(), "", "kernels", "build", "--preset", "tiny", "--out", Path.Combine(_folder, "x")).IsBadInput("NVRTC");

    [Theory]
    [InlineData("--arch", "sm_60", "sm_75")]
    [InlineData("--arch", "ampere", "sm_80")]
    [InlineData("--dtype", "int8", "bfloat16")]
    [InlineData("--preset", "13b", "7b-1536")]
    [InlineData("--gpu", "tpu", "h200")]
    [InlineData("--quantize", "q5", "nf4")]
    public void Build_refuses_what_it_cannot_do(string option, string value, string word)
    {
        string[] preset = option == "--preset" ? [] : ["--preset", "tiny"];
        CommandLine.Run(["kernels", "build", .. preset, "--out", Path.Combine(_folder, "x"), option, value]).IsBadInput(value, word);
        Assert.Empty(Directory.GetFileSystemEntries(_folder));
    }

    [Fact]
    public void Build_refuses_bfloat16_for_turing() => CommandLine.Run("kernels", "build", "--preset", "tiny", "--arch", "sm_75", "--out", Path.Combine(_folder, "x")).IsBadInput("bfloat16", "float16");

    [Fact]
    public void Build_refuses_an_architecture_that_the_compiler_does_not_know()
        => CommandLine.RunIn(WithCompiler(), "", "kernels", "build", "--preset", "tiny", "--arch", "sm_999", "--out", Path.Combine(_folder, "x")).IsBadInput("sm_999", "sm_80");

    [Fact]
    public void Bindings_report_what_is_absent()
    {
        string output = CommandLine.RunIn(Without(), "", "selftest", "bindings", "--preset", "tiny", "--json", Path.Combine(_folder, "b.json")).Succeeds();
        Assert.Contains("absent    NVRTC", output);
        Assert.Contains("absent    cuBLASLt", output);
        Assert.Equal(output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length, JsonDocument.Parse(File.ReadAllText(Path.Combine(_folder, "b.json"))).RootElement.GetArrayLength());
    }

    [Fact]
    public void Bindings_compile_a_kernel_where_the_compiler_is_installed()
    {
        string output = CommandLine.RunIn(WithCompiler(), "", "selftest", "bindings", "--preset", "tiny").Succeeds();
        Assert.Contains("ok        NVRTC", output);
        Assert.Contains("ok        compile a kernel: rms_norm.cu to sm_80", output);
    }

    [Fact]
    public void Bindings_refuse_an_unknown_preset() => CommandLine.Run("selftest", "bindings", "--preset", "13b").IsBadInput("13b");
}
