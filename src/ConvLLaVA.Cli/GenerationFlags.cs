using System.CommandLine;
using ConvLLaVA.Engine.Generation;

namespace ConvLLaVA.Cli;

/// <summary>The options that say how the answer is generated.</summary>
internal sealed class GenerationFlags
{
    private static readonly GenerationOptions Defaults = new();
    private readonly Option<int> _maxNewTokens = new("--max-new-tokens", "-n") { Description = "Most tokens to generate.", DefaultValueFactory = _ => Defaults.MaxNewTokens, HelpName = "N" };
    private readonly Option<float> _temperature = new("--temperature") { Description = "0 answers greedily; above, tokens are sampled.", DefaultValueFactory = _ => 0f, HelpName = "T" };
    private readonly Option<float> _topP = new("--top-p") { Description = "Sample from the smallest set of tokens with this probability.", DefaultValueFactory = _ => Defaults.TopP, HelpName = "P" };
    private readonly Option<int> _topK = new("--top-k") { Description = "Sample from the K likeliest tokens; 0 for all.", DefaultValueFactory = _ => Defaults.TopK, HelpName = "K" };
    private readonly Option<float> _minP = new("--min-p") { Description = "Drop tokens below this fraction of the likeliest one's probability.", DefaultValueFactory = _ => Defaults.MinP, HelpName = "P" };
    private readonly Option<float> _repetition = new("--repetition-penalty") { Description = "Above 1 makes generated tokens less likely to come again.", DefaultValueFactory = _ => Defaults.RepetitionPenalty, HelpName = "R" };
    private readonly Option<float> _presence = new("--presence-penalty") { Description = "Taken from the logit of every token already generated.", DefaultValueFactory = _ => Defaults.PresencePenalty, HelpName = "A" };
    private readonly Option<float> _frequency = new("--frequency-penalty") { Description = "Taken from the logit for every time a token was generated.", DefaultValueFactory = _ => Defaults.FrequencyPenalty, HelpName = "A" };
    private readonly Option<ulong?> _seed = new("--seed") { Description = "Makes sampling repeatable.", HelpName = "N" };
    private readonly Option<string[]> _stop = new("--stop") { Description = "Stop before this text; may be given several times.", HelpName = "TEXT", DefaultValueFactory = _ => [] };

    /// <summary>Adds the options to <paramref name="command"/>.</summary>
    public void AddTo(Command command)
    {
        foreach (Option option in (Option[])[_maxNewTokens, _temperature, _topP, _topK, _minP, _repetition, _presence, _frequency, _seed, _stop]) command.Add(option);
    }

    /// <summary>The options as the engine takes them.</summary>
    /// <exception cref="Engine.InvalidInputException">A value is out of range.</exception>
    public GenerationOptions Options(ParseResult parsed)
    {
        var options = new GenerationOptions
        {
            MaxNewTokens = parsed.GetValue(_maxNewTokens),
            Temperature = parsed.GetValue(_temperature),
            TopP = parsed.GetValue(_topP),
            TopK = parsed.GetValue(_topK),
            MinP = parsed.GetValue(_minP),
            RepetitionPenalty = parsed.GetValue(_repetition),
            PresencePenalty = parsed.GetValue(_presence),
            FrequencyPenalty = parsed.GetValue(_frequency),
            Seed = parsed.GetValue(_seed),
            StopStrings = parsed.GetValue(_stop) ?? [],
        };
        options.Validate();
        return options;
    }
}
