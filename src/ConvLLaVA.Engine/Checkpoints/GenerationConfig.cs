using System.Collections.Immutable;
using System.Text;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary><c>generation_config.json</c>: what the checkpoint suggests for decoding. A missing field takes transformers' default.</summary>
public sealed record GenerationConfig
{
    /// <summary><c>do_sample</c>: sample instead of taking the most likely token; default false.</summary>
    public bool DoSample { get; init; }

    /// <summary><c>temperature</c>; default 1.</summary>
    public double Temperature { get; init; } = 1;

    /// <summary><c>top_k</c>; default 50; 0 switches the filter off.</summary>
    public int TopK { get; init; } = 50;

    /// <summary><c>top_p</c>; default 1 (off).</summary>
    public double TopP { get; init; } = 1;

    /// <summary><c>repetition_penalty</c>; default 1 (off).</summary>
    public double RepetitionPenalty { get; init; } = 1;

    /// <summary><c>num_beams</c>; default 1.</summary>
    public int NumBeams { get; init; } = 1;

    /// <summary><c>min_length</c> in tokens; default 0.</summary>
    public int MinLength { get; init; }

    /// <summary><c>max_length</c> in tokens, prompt included; default 20 (published: 4096).</summary>
    public int MaxLength { get; init; } = 20;

    /// <summary><c>max_new_tokens</c>; null when missing.</summary>
    public int? MaxNewTokens { get; init; }

    /// <summary><c>bos_token_id</c>; null when missing.</summary>
    public int? BosTokenId { get; init; }

    /// <summary><c>eos_token_id</c>, one or several; empty when missing (the model's then count).</summary>
    public ImmutableArray<int> EosTokenIds { get; init; } = [];

    /// <summary><c>pad_token_id</c>; null when missing.</summary>
    public int? PadTokenId { get; init; }

    /// <summary>Reads <paramref name="path"/>.</summary>
    /// <exception cref="InvalidInputException">The file cannot be read or holds a value outside its range.</exception>
    public static GenerationConfig Load(string path) => JsonFields.Load(path, Read);

    /// <summary>Reads JSON text; <paramref name="source"/> names it in messages.</summary>
    /// <exception cref="InvalidInputException">The text holds a value outside its range.</exception>
    public static GenerationConfig Parse(string json, string source) => JsonFields.Parse(Encoding.UTF8.GetBytes(json), source, Read);

    private static GenerationConfig Read(JsonFields fields)
    {
        const int Max = LlavaConfig.MaxSize;
        return new GenerationConfig
        {
            DoSample = fields.Bool("do_sample", false),
            Temperature = fields.Number("temperature", 1, 0, 1e3),
            TopK = fields.Int("top_k", 50, 0, Max),
            TopP = fields.Number("top_p", 1, 0, 1),
            RepetitionPenalty = fields.Number("repetition_penalty", 1, 1e-3, 1e3),
            NumBeams = fields.Int("num_beams", 1, 1, 1000),
            MinLength = fields.Int("min_length", 0, 0, Max),
            MaxLength = fields.Int("max_length", 20, 0, Max),
            MaxNewTokens = fields.OptionalInt("max_new_tokens", 1, Max),
            BosTokenId = fields.OptionalInt("bos_token_id", 0, Max),
            EosTokenIds = fields.Ints("eos_token_id", 0, Max, 64, allowSingle: true) ?? [],
            PadTokenId = fields.OptionalInt("pad_token_id", -1, Max) is int pad and >= 0 ? pad : null,
        };
    }
}
