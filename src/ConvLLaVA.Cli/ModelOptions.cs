using System.CommandLine;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Cli;

/// <summary>The options that say which model to load and how, common to all commands that load one.</summary>
internal sealed class ModelOptions
{
    private readonly Option<string?> _model = new("--model", "-m") { Description = "Checkpoint folder; without it the demo model is used.", HelpName = "DIR" };
    private readonly Option<string?> _visionTower = new("--vision-tower") { Description = "Folder of the vision tower, ahead of where the checkpoint says.", HelpName = "DIR" };
    private readonly Option<string> _device = new("--device") { Description = "auto or cpu.", DefaultValueFactory = _ => "auto", HelpName = "DEVICE" };
    private readonly Option<string> _dtype = new("--dtype") { Description = "Precision weights are kept in: auto (as stored), float32, float16 or bfloat16.", DefaultValueFactory = _ => "auto", HelpName = "TYPE" };
    private readonly Option<int> _threads = new("--threads") { Description = "CPU threads; 0 uses all.", HelpName = "N" };
    private readonly Option<int?> _kvTokens = new("--kv-tokens") { Description = "Tokens the KV cache has room for.", HelpName = "N" };
    private readonly Option<long> _maxPixels = new("--max-image-pixels") { Description = "Largest picture accepted, in pixels; 0 for no limit.", DefaultValueFactory = _ => new LoadOptions().MaxImagePixels, HelpName = "N" };
    private readonly Option<bool> _verbose = new("--verbose", "-v") { Description = "Say more on stderr." };

    /// <summary>Adds the options to <paramref name="command"/>.</summary>
    public void AddTo(Command command)
    {
        foreach (Option option in (Option[])[_model, _visionTower, _device, _dtype, _threads, _kvTokens, _maxPixels, _verbose]) command.Add(option);
    }

    /// <summary>Folder of the model: <c>--model</c>, or the demo model's.</summary>
    public string ModelFolder(ParseResult parsed) => parsed.GetValue(_model) ?? DemoModel.Locate();

    /// <summary>The options as the engine takes them.</summary>
    /// <exception cref="InvalidInputException">A value is not understood.</exception>
    public LoadOptions LoadOptions(ParseResult parsed) => new()
    {
        VisionTower = parsed.GetValue(_visionTower),
        Device = parsed.GetValue(_device) switch
        {
            "auto" => Device.Auto,
            "cpu" => Device.Cpu,
            var other => throw new InvalidInputException($"--device is '{other}' but must be auto or cpu."),
        },
        WeightType = parsed.GetValue(_dtype) switch
        {
            "auto" => null,
            "float32" or "fp32" => DType.Float32,
            "float16" or "fp16" => DType.Float16,
            "bfloat16" or "bf16" => DType.BFloat16,
            var other => throw new InvalidInputException($"--dtype is '{other}' but must be auto, float32, float16 or bfloat16."),
        },
        Threads = parsed.GetValue(_threads),
        KvCacheTokens = parsed.GetValue(_kvTokens),
        MaxImagePixels = parsed.GetValue(_maxPixels),
        LoggerFactory = new StderrLoggerFactory(parsed.GetValue(_verbose) ? LogLevel.Debug : LogLevel.Warning),
    };

    /// <summary>Loads the model, with a progress bar on stderr when that is a terminal.</summary>
    public async Task<ConvLlava> LoadAsync(ParseResult parsed, CancellationToken cancellation)
    {
        LoadOptions options = LoadOptions(parsed); // before the folder: a wrong option is said first
        string folder = ModelFolder(parsed);
        return await LoadingBar.RunAsync(progress => ConvLlava.LoadAsync(folder, options, progress, cancellation));
    }
}
