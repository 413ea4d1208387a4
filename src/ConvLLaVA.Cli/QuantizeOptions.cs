using System.CommandLine;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Cli;

/// <summary>The options that say which weights are quantised and how.</summary>
internal sealed class QuantizeOptions
{
    private readonly Option<string?> _format;
    private readonly Option<bool> _vision;
    private readonly Option<bool> _head;

    /// <summary>Options of a command that loads a model.</summary>
    public QuantizeOptions() : this("--quantize", "quantize-", required: false) { }

    private QuantizeOptions(string format, string prefix, bool required)
    {
        string names = QuantFormats.AllNames;
        _format = new(format) { Description = required ? $"Format: {names}." : $"Quantise the weights while loading: {names}.", HelpName = "FORMAT", Required = required };
        _vision = new($"--{prefix}vision") { Description = "Quantise the vision tower's pointwise layers too." };
        _head = new($"--{prefix}lm-head") { Description = "Quantise the output head too." };
    }

    /// <summary>Options of the command that writes a quantised checkpoint.</summary>
    public static QuantizeOptions ForWriting() => new("--to", "", required: true);

    /// <summary>Adds them to <paramref name="command"/>.</summary>
    public void AddTo(Command command)
    {
        command.Add(_format);
        command.Add(_vision);
        command.Add(_head);
    }

    /// <summary>What was asked for, or null for nothing.</summary>
    /// <exception cref="InvalidInputException">The format is unknown, or parts are named without one.</exception>
    public QuantOptions? Options(ParseResult parsed)
    {
        bool vision = parsed.GetValue(_vision), head = parsed.GetValue(_head);
        if (parsed.GetValue(_format) is not { } name)
        {
            if (vision || head) throw new InvalidInputException($"{(vision ? _vision : _head).Name} says what to quantise, but {_format.Name} does not say how, expected one of {QuantFormats.AllNames}.");
            return null;
        }
        return new QuantOptions(Format(_format.Name, name), vision, head);
    }

    /// <summary>The format of that name.</summary>
    /// <exception cref="InvalidInputException">There is none.</exception>
    public static QuantFormat Format(string option, string name) => QuantFormats.TryParse(name)
        ?? throw new InvalidInputException($"{option} is '{name}' but must be one of {QuantFormats.AllNames}.");
}
