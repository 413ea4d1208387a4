using System.CommandLine;
using ConvLLaVA.Engine;
using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Cli;

/// <summary>The options of commands that use a device without a model.</summary>
internal sealed class DeviceOptions
{
    private readonly Option<string> _device = new("--device") { Description = "auto, cpu or cuda.", DefaultValueFactory = _ => "auto", HelpName = "DEVICE" };
    private readonly Option<string> _dtype = new("--dtype") { Description = "Precision: float32, float16 or bfloat16.", DefaultValueFactory = _ => "bfloat16", HelpName = "TYPE" };
    private readonly Option<int> _threads = new("--threads") { Description = "CPU threads; 0 uses all.", HelpName = "N" };
    private readonly Option<bool> _verbose = new("--verbose", "-v") { Description = "Say more on stderr." };

    /// <summary>Adds the options to <paramref name="command"/>.</summary>
    public void AddTo(Command command)
    {
        foreach (Option option in (Option[])[_device, _dtype, _threads, _verbose]) command.Add(option);
    }

    /// <summary>The options as the engine takes them.</summary>
    /// <exception cref="InvalidInputException">A value is not understood.</exception>
    public LoadOptions LoadOptions(ParseResult parsed) => new()
    {
        Device = ModelOptions.DeviceOf(parsed.GetValue(_device)!),
        WeightType = DTypeNames.Parse(parsed.GetValue(_dtype)!),
        Threads = parsed.GetValue(_threads),
        LoggerFactory = new StderrLoggerFactory(parsed.GetValue(_verbose) ? LogLevel.Debug : LogLevel.Warning),
    };
}
