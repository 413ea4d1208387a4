using System.Text;

namespace ConvLLaVA.Engine.Generation;

/// <summary>Why an answer ended.</summary>
public enum FinishReason
{
    /// <summary>The model ended it with its end-of-sequence token.</summary>
    Stop,

    /// <summary>A stop string came up.</summary>
    StopString,

    /// <summary>The length asked for, or the model's context, is used up.</summary>
    Length,
}

/// <summary>Tokens of a request.</summary>
/// <param name="PromptTokens">Tokens of the prompt, visual tokens included.</param>
/// <param name="ImageTokens">Of them, visual tokens.</param>
/// <param name="CompletionTokens">Generated tokens, the end-of-sequence token included.</param>
/// <param name="ReusedTokens">Tokens at the start of the prompt that an earlier request had processed already.</param>
public sealed record TokenUsage(int PromptTokens, int ImageTokens, int CompletionTokens, int ReusedTokens = 0);

/// <summary>Where the time of a request went.</summary>
/// <param name="Queue">From submission until its first work began.</param>
/// <param name="Preprocess">Decoding and resizing pictures, tokenizing.</param>
/// <param name="Encode">Vision tower and projector.</param>
/// <param name="Prefill">The steps that processed the prompt, those of other requests in them included.</param>
/// <param name="Decode">From the first generated token to the last.</param>
/// <param name="TimeToFirstToken">From submission, preprocessing included, to the first generated token.</param>
/// <param name="PerToken"><paramref name="Decode"/> divided by the tokens after the first; zero when there is none.</param>
public sealed record GenerationTimings(TimeSpan Queue, TimeSpan Preprocess, TimeSpan Encode, TimeSpan Prefill, TimeSpan Decode, TimeSpan TimeToFirstToken, TimeSpan PerToken);

/// <summary>A token and the natural logarithm of its probability under the model (before penalties and sampling options).</summary>
public readonly record struct TokenLogProb(int Id, float LogProb);

/// <summary>A generated token's probability.</summary>
/// <param name="Chosen">The token that was taken.</param>
/// <param name="Top">The likeliest tokens of that step, best first; empty unless asked for.</param>
public sealed record LogProbEntry(TokenLogProb Chosen, IReadOnlyList<TokenLogProb> Top);

/// <summary>A piece of an answer. Joined texts are the whole answer; none ends inside a character or shows what could still
/// become a stop string.</summary>
public sealed record GenerationUpdate
{
    /// <summary>New text; may be empty.</summary>
    public string Text { get; init; } = "";

    /// <summary>Tokens generated since the last update.</summary>
    public IReadOnlyList<int> TokenIds { get; init; } = [];

    /// <summary>One entry for each of <see cref="TokenIds"/> when asked for, else empty.</summary>
    public IReadOnlyList<LogProbEntry> LogProbs { get; init; } = [];

    /// <summary>On the last update: how it ended, and what it took.</summary>
    public GenerationEnd? End { get; init; }
}

/// <summary>How an answer ended and what it took.</summary>
/// <param name="FinishReason">Why it ended.</param>
/// <param name="Usage">Tokens.</param>
/// <param name="Timings">Time.</param>
/// <param name="Seed">Seed of the sampler; null when greedy.</param>
public sealed record GenerationEnd(FinishReason FinishReason, TokenUsage Usage, GenerationTimings Timings, ulong? Seed);

/// <summary>A whole answer.</summary>
/// <param name="Text">The text, special tokens and stop string left out.</param>
/// <param name="TokenIds">Generated ids, the end-of-sequence token included.</param>
/// <param name="LogProbs">One entry a token when asked for, else empty.</param>
/// <param name="FinishReason">Why it ended.</param>
/// <param name="Usage">Tokens.</param>
/// <param name="Timings">Time.</param>
/// <param name="Seed">Seed of the sampler; null when greedy.</param>
public sealed record GenerationResult(string Text, IReadOnlyList<int> TokenIds, IReadOnlyList<LogProbEntry> LogProbs, FinishReason FinishReason, TokenUsage Usage, GenerationTimings Timings, ulong? Seed)
{
    /// <summary>Collects a stream of updates into one result.</summary>
    /// <exception cref="ConvLlavaException">The stream ended without its last update.</exception>
    public static async Task<GenerationResult> CollectAsync(IAsyncEnumerable<GenerationUpdate> updates)
    {
        ArgumentNullException.ThrowIfNull(updates);
        var text = new StringBuilder();
        var ids = new List<int>();
        var logProbs = new List<LogProbEntry>();
        GenerationEnd? end = null;
        await foreach (GenerationUpdate update in updates.ConfigureAwait(false))
        {
            text.Append(update.Text);
            ids.AddRange(update.TokenIds);
            logProbs.AddRange(update.LogProbs);
            end = update.End ?? end;
        }
        return end is null
            ? throw new ConvLlavaException("The answer broke off before its end.")
            : new GenerationResult(text.ToString(), ids, logProbs, end.FinishReason, end.Usage, end.Timings, end.Seed);
    }
}
