using System.Text.Json.Serialization;
using ConvLLaVA.Engine.Generation;

namespace ConvLLaVA.Cli;

/// <summary>What <c>run --json</c> prints.</summary>
/// <param name="Text">The answer.</param>
/// <param name="TokenIds">Generated ids, the end-of-sequence token included.</param>
/// <param name="Prompt">The prompt after the template, <c>&lt;image&gt;</c> unexpanded.</param>
/// <param name="PromptTokens">Tokens of the prompt, image tokens included.</param>
/// <param name="ImageTokens">Of them, visual tokens.</param>
/// <param name="CompletionTokens">Generated tokens.</param>
/// <param name="FinishReason"><c>stop</c>, <c>stop_string</c> or <c>length</c>.</param>
/// <param name="Seed">Seed of the sampler; null when greedy.</param>
/// <param name="Timings">Where the time went, in milliseconds.</param>
internal sealed record RunReport(string Text, IReadOnlyList<int> TokenIds, string Prompt, int PromptTokens, int ImageTokens,
    int CompletionTokens, string FinishReason, ulong? Seed, TimingReport Timings)
{
    public static RunReport From(GenerationResult result, string prompt) => new(
        result.Text, result.TokenIds, prompt, result.Usage.PromptTokens, result.Usage.ImageTokens, result.Usage.CompletionTokens,
        result.FinishReason switch
        {
            Engine.Generation.FinishReason.StopString => "stop_string",
            var reason => reason.ToString().ToLowerInvariant(),
        },
        result.Seed,
        TimingReport.From(result.Timings));
}

/// <summary>Durations in milliseconds.</summary>
internal sealed record TimingReport(double QueueMs, double PreprocessMs, double EncodeMs, double PrefillMs, double TimeToFirstTokenMs, double DecodeMs, double PerTokenMs)
{
    public static TimingReport From(GenerationTimings timings) => new(
        Ms(timings.Queue), Ms(timings.Preprocess), Ms(timings.Encode), Ms(timings.Prefill), Ms(timings.TimeToFirstToken), Ms(timings.Decode), Ms(timings.PerToken));

    private static double Ms(TimeSpan span) => Math.Round(span.TotalMilliseconds, 3);
}

[JsonSerializable(typeof(RunReport))]
[JsonSerializable(typeof(int[]))]
[JsonSerializable(typeof(string))]
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
internal sealed partial class CliJson : JsonSerializerContext;
