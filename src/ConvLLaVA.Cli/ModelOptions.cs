using System.CommandLine;
using System.Globalization;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Cli;

/// <summary>The options that say which model to load and how, common to all commands that load one.</summary>
internal sealed class ModelOptions
{
    private readonly Option<string?> _model = new("--model", "-m") { Description = "Checkpoint folder, or synth:PRESET for random weights; without it the demo model is used.", HelpName = "DIR" };
    private readonly Option<string?> _visionTower = new("--vision-tower") { Description = "Folder of the vision tower, ahead of where the checkpoint says.", HelpName = "DIR" };
    private readonly Option<string> _device = new("--device") { Description = "auto, cpu or cuda.", DefaultValueFactory = _ => "auto", HelpName = "DEVICE" };
    private readonly Option<string> _dtype = new("--dtype") { Description = "Precision weights are kept in, and on a GPU computed in: auto (as stored), float32, float16 or bfloat16.", DefaultValueFactory = _ => "auto", HelpName = "TYPE" };
    private readonly QuantizeOptions _quantize = new();
    private readonly Option<int> _threads = new("--threads") { Description = "CPU threads; 0 uses all.", HelpName = "N" };
    private readonly Option<int?> _kvTokens = new("--kv-tokens") { Description = "Tokens the KV cache has room for.", HelpName = "N" };
    private readonly Option<string?> _kvMemory = new("--kv-memory") { Description = "Memory the KV cache may take, such as 2GiB.", HelpName = "BYTES" };
    private readonly Option<int?> _gpu = new("--gpu") { Description = "Number of the GPU; without it the first that can be used.", HelpName = "N" };
    private readonly Option<double> _gpuFraction = new("--gpu-memory-fraction") { Description = "Share of the GPU's memory that may be used.", DefaultValueFactory = _ => new LoadOptions().GpuMemoryFraction, HelpName = "SHARE" };
    private readonly Option<bool> _deterministic = new("--deterministic") { Description = "On a GPU: bit-equal results whatever else runs at the same time; slower prefill." };
    private readonly Option<bool> _tanhGelu = new("--tanh-gelu") { Description = "On a GPU: the vision tower's GELU in cuBLASLt's tanh form; faster, a little less exact." };
    private readonly Option<string?> _kernels = new("--kernels") { Description = "Folder of CUDA kernels that stand in for the built-in ones.", HelpName = "DIR" };
    private readonly Option<long> _maxPixels = new("--max-image-pixels") { Description = "Largest picture accepted, in pixels; 0 for no limit.", DefaultValueFactory = _ => new LoadOptions().MaxImagePixels, HelpName = "N" };
    private readonly Option<bool> _verbose = new("--verbose", "-v") { Description = "Say more on stderr." };

    /// <summary>Adds the options to <paramref name="command"/>, those that quantise only where asked.</summary>
    public void AddTo(Command command, bool quantize = true)
    {
        foreach (Option option in (Option[])[_model, _visionTower, _device, _dtype, _threads, _kvTokens, _kvMemory, _gpu, _gpuFraction, _deterministic, _tanhGelu, _kernels, _maxPixels, _verbose]) command.Add(option);
        if (quantize) _quantize.AddTo(command);
    }

    /// <summary>Folder of the model: <c>--model</c>, or the demo model's.</summary>
    public string ModelFolder(ParseResult parsed) => parsed.GetValue(_model) ?? DemoModel.Locate();

    /// <summary>The options as the engine takes them.</summary>
    /// <exception cref="InvalidInputException">A value is not understood.</exception>
    public LoadOptions LoadOptions(ParseResult parsed) => new()
    {
        VisionTower = parsed.GetValue(_visionTower),
        Device = DeviceOf(parsed.GetValue(_device)!),
        WeightType = parsed.GetValue(_dtype) switch
        {
            "auto" => null,
            var name when DTypeNames.TryParse(name) is { } type => type,
            var other => throw new InvalidInputException($"--dtype is '{other}' but must be auto, float32, float16 or bfloat16."),
        },
        Quantize = _quantize.Options(parsed),
        Threads = parsed.GetValue(_threads),
        KvCacheTokens = parsed.GetValue(_kvTokens),
        KvMemory = parsed.GetValue(_kvMemory) is { } bytes ? ByteCount(bytes) : null,
        GpuOrdinal = parsed.GetValue(_gpu),
        GpuMemoryFraction = parsed.GetValue(_gpuFraction),
        Deterministic = parsed.GetValue(_deterministic),
        TanhGelu = parsed.GetValue(_tanhGelu),
        KernelFolder = parsed.GetValue(_kernels),
        MaxImagePixels = parsed.GetValue(_maxPixels),
        LoggerFactory = new StderrLoggerFactory(parsed.GetValue(_verbose) ? LogLevel.Debug : LogLevel.Warning),
    };

    /// <summary>The device of that name.</summary>
    /// <exception cref="InvalidInputException">There is none.</exception>
    public static Device DeviceOf(string name) => name switch
    {
        "auto" => Device.Auto,
        "cpu" => Device.Cpu,
        "cuda" => Device.Cuda,
        _ => throw new InvalidInputException($"--device is '{name}' but must be auto, cpu or cuda."),
    };

    /// <summary>A number of bytes, with <c>KiB</c>, <c>MiB</c> or <c>GiB</c> behind it or nothing.</summary>
    /// <exception cref="InvalidInputException">It is not one.</exception>
    internal static long ByteCount(string text)
    {
        foreach ((string unit, int shift) in ((string, int)[])[("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)])
        {
            if (!text.EndsWith(unit, StringComparison.OrdinalIgnoreCase)) continue;
            string number = text[..^unit.Length].TrimEnd();
            if (decimal.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal value) && value > 0 && value < 1L << 32)
                return (long)(value * (1L << shift));
            break;
        }
        return long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long bytes) && bytes > 0
            ? bytes
            : throw new InvalidInputException($"'{text}' is not a number of bytes such as 500000000, 800MiB or 2.5GiB.");
    }

    /// <summary>Loads the model, with a progress bar on stderr when that is a terminal.</summary>
    public async Task<ConvLlava> LoadAsync(ParseResult parsed, CancellationToken cancellation, Profiler? profiler = null)
    {
        LoadOptions options = LoadOptions(parsed) with { Profiler = profiler }; // before the folder: a wrong option is said first
        string folder = ModelFolder(parsed);
        return await LoadingBar.RunAsync(progress => ConvLlava.LoadAsync(folder, options, progress, cancellation));
    }
}
