namespace ConvLLaVA.Engine.Generation;

/// <summary>How tokens are chosen and when to stop. The defaults answer greedily, as the original's evaluation does.</summary>
public sealed record GenerationOptions
{
    /// <summary>Most alternatives <see cref="TopLogProbs"/> can ask for.</summary>
    public const int MostTopLogProbs = Tensors.SamplingBatch.MostLikeliest;

    /// <summary>Most tokens to generate, 1 or more; the context's end stops earlier.</summary>
    public int MaxNewTokens { get; init; } = 512;

    /// <summary>0 takes the likeliest token each time; above, logits are divided by it and a token is drawn.</summary>
    public float Temperature { get; init; }

    /// <summary>When sampling, draw from the K likeliest tokens (ties with the K-th kept); 0 for all. Hugging Face's default of 50 is
    /// active in every caller of the original.</summary>
    public int TopK { get; init; } = 50;

    /// <summary>When sampling, draw from the smallest set of tokens with at least this probability, above 0 to 1.</summary>
    public float TopP { get; init; } = 1;

    /// <summary>When sampling, drop tokens below this fraction of the likeliest one's probability, 0 to 1.</summary>
    public float MinP { get; init; }

    /// <summary>Divides positive and multiplies negative logits of tokens already generated; above 0, 1 for none.</summary>
    public float RepetitionPenalty { get; init; } = 1;

    /// <summary>Taken from the logit of every token already generated.</summary>
    public float PresencePenalty { get; init; }

    /// <summary>Taken from the logit of a token for every time it was generated.</summary>
    public float FrequencyPenalty { get; init; }

    /// <summary>Makes sampling repeatable, whatever else runs; null draws a seed, which the result tells.</summary>
    public ulong? Seed { get; init; }

    /// <summary>The answer ends before the first of these texts; they may span tokens.</summary>
    public IReadOnlyList<string> StopStrings { get; init; } = [];

    /// <summary>Report the log-probability of each chosen token.</summary>
    public bool LogProbs { get; init; }

    /// <summary>With <see cref="LogProbs"/>, also report this many likeliest tokens of each step, 0 to 20.</summary>
    public int TopLogProbs { get; init; }

    /// <summary>Go on past the end-of-sequence token, for measurements.</summary>
    public bool IgnoreEos { get; init; }

    /// <summary>True when tokens are drawn.</summary>
    public bool Samples => Temperature > 0;

    /// <summary>Checks every value.</summary>
    /// <exception cref="InvalidInputException">A value is out of its range.</exception>
    public void Validate()
    {
        Require(MaxNewTokens >= 1, "max_new_tokens", MaxNewTokens, "at least 1");
        Require(Temperature >= 0 && float.IsFinite(Temperature), "temperature", Temperature, "0 or a positive number");
        Require(TopK >= 0, "top_k", TopK, "0 (off) or more");
        Require(TopP is > 0 and <= 1, "top_p", TopP, "above 0 and at most 1");
        Require(MinP is >= 0 and <= 1, "min_p", MinP, "from 0 to 1");
        Require(RepetitionPenalty > 0 && float.IsFinite(RepetitionPenalty), "repetition_penalty", RepetitionPenalty, "a positive number");
        Require(float.IsFinite(PresencePenalty), "presence_penalty", PresencePenalty, "a number");
        Require(float.IsFinite(FrequencyPenalty), "frequency_penalty", FrequencyPenalty, "a number");
        Require(TopLogProbs is >= 0 and <= MostTopLogProbs, "top_logprobs", TopLogProbs, $"from 0 to {MostTopLogProbs}");
        if (StopStrings.Any(string.IsNullOrEmpty)) throw new InvalidInputException("A stop string is empty, but it must hold at least one character.");
    }

    private static void Require<T>(bool holds, string option, T value, string expected)
    {
        if (!holds) throw new InvalidInputException(string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{option} is {value} but must be {expected}."));
    }
}
