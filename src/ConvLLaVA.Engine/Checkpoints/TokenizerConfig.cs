using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>A token added to the SentencePiece vocabulary, or a special one within it.</summary>
/// <param name="Content">The text that stands for it.</param>
/// <param name="Id">Its token id.</param>
/// <param name="Special">Left out when decoding with special tokens skipped.</param>
/// <param name="LStrip">Swallows white space on its left.</param>
/// <param name="RStrip">Swallows white space on its right.</param>
/// <param name="SingleWord">Only matched as a word of its own.</param>
/// <param name="Normalized">Matched against normalised text.</param>
public sealed record AddedToken(string Content, int Id, bool Special, bool LStrip, bool RStrip, bool SingleWord, bool Normalized);

/// <summary>Everything a checkpoint says about its tokenizer beside <c>tokenizer.model</c>: <c>tokenizer_config.json</c>,
/// <c>special_tokens_map.json</c> and <c>added_tokens.json</c>, merged as transformers' slow LlamaTokenizer merges them.</summary>
public sealed record TokenizerConfig
{
    /// <summary><c>legacy</c>: the old treatment of text after special tokens. When missing transformers takes true; the
    /// published checkpoints say false.</summary>
    public bool Legacy { get; init; } = true;

    /// <summary><c>add_bos_token</c>; default true.</summary>
    public bool AddBosToken { get; init; } = true;

    /// <summary><c>add_eos_token</c>; default false.</summary>
    public bool AddEosToken { get; init; }

    /// <summary><c>clean_up_tokenization_spaces</c>; default false.</summary>
    public bool CleanUpTokenizationSpaces { get; init; }

    /// <summary><c>spaces_between_special_tokens</c>; default false.</summary>
    public bool SpacesBetweenSpecialTokens { get; init; }

    /// <summary><c>bos_token</c>; default <c>&lt;s&gt;</c>.</summary>
    public string BosToken { get; init; } = "<s>";

    /// <summary><c>eos_token</c>; default <c>&lt;/s&gt;</c>.</summary>
    public string EosToken { get; init; } = "</s>";

    /// <summary><c>unk_token</c>; default <c>&lt;unk&gt;</c>.</summary>
    public string UnkToken { get; init; } = "<unk>";

    /// <summary><c>pad_token</c>; null when none.</summary>
    public string? PadToken { get; init; }

    /// <summary><c>model_max_length</c> in tokens; null = no limit.</summary>
    public int? ModelMaxLength { get; init; }

    /// <summary><c>padding_side</c>; default <c>right</c>.</summary>
    public string PaddingSide { get; init; } = "right";

    /// <summary><c>tokenizer_class</c>; null when missing.</summary>
    public string? TokenizerClass { get; init; }

    /// <summary>Entries of <c>added_tokens_decoder</c> and <c>added_tokens.json</c>, by id.</summary>
    public ImmutableArray<AddedToken> AddedTokens { get; init; } = [];

    /// <summary>Reads the files in <paramref name="directory"/>; a missing file leaves the defaults.</summary>
    /// <exception cref="InvalidInputException">A file cannot be read or holds a value outside its range.</exception>
    public static TokenizerConfig Load(string directory)
    {
        string main = Path.Combine(directory, "tokenizer_config.json");
        string map = Path.Combine(directory, "special_tokens_map.json");
        string added = Path.Combine(directory, "added_tokens.json");
        bool hasDecoder = false;
        TokenizerConfig config = new();
        if (File.Exists(main))
        {
            (config, hasDecoder) = JsonFields.Load(main, fields => (ReadMain(fields), fields.Has("added_tokens_decoder")));
        }
        // transformers: the two older files count only when tokenizer_config.json does not list the added tokens itself.
        if (!hasDecoder && File.Exists(map)) config = JsonFields.Load(map, fields => ReadSpecial(fields, config));
        if (!hasDecoder && File.Exists(added)) config = JsonFields.Load(added, fields => ReadAdded(fields, config));
        return config;
    }

    private static TokenizerConfig ReadMain(JsonFields fields) => ReadSpecial(fields, new TokenizerConfig
    {
        Legacy = fields.Bool("legacy", true),
        AddBosToken = fields.Bool("add_bos_token", true),
        AddEosToken = fields.Bool("add_eos_token", false),
        CleanUpTokenizationSpaces = fields.Bool("clean_up_tokenization_spaces", false),
        SpacesBetweenSpecialTokens = fields.Bool("spaces_between_special_tokens", false),
        ModelMaxLength = LlavaConfig.MaxLength(fields, "model_max_length"),
        PaddingSide = LlavaConfig.PaddingSide(fields, "padding_side"),
        TokenizerClass = fields.String("tokenizer_class"),
        AddedTokens = ReadDecoder(fields),
    });

    private static TokenizerConfig ReadSpecial(JsonFields fields, TokenizerConfig config) => config with
    {
        BosToken = Content(fields, "bos_token") ?? config.BosToken,
        EosToken = Content(fields, "eos_token") ?? config.EosToken,
        UnkToken = Content(fields, "unk_token") ?? config.UnkToken,
        PadToken = Content(fields, "pad_token") ?? config.PadToken,
    };

    private static string? Content(JsonFields fields, string name)
    {
        if (!fields.TryGet(name, out JsonElement value)) return null;
        if (value.ValueKind == JsonValueKind.String) return value.GetString();
        if (value.ValueKind == JsonValueKind.Object && fields.Inside(value).String("content") is string content) return content;
        throw fields.Wrong(name, value, "a string or an object with \"content\"");
    }

    private static ImmutableArray<AddedToken> ReadDecoder(JsonFields fields)
    {
        if (fields.Object("added_tokens_decoder") is not JsonFields decoder) return [];
        List<AddedToken> tokens = [];
        foreach (JsonProperty member in decoder.Members)
        {
            if (!int.TryParse(member.Name, NumberStyles.None, CultureInfo.InvariantCulture, out int id) || id > LlavaConfig.MaxSize
                || member.Value.ValueKind != JsonValueKind.Object)
            {
                throw fields.Wrong("added_tokens_decoder", $"with the entry \"{member.Name}\"", "objects under token ids");
            }
            JsonFields token = decoder.Inside(member.Value);
            string content = token.String("content") ?? throw fields.Wrong("added_tokens_decoder", $"without \"content\" for token {member.Name}", "a string there");
            tokens.Add(new AddedToken(content, id, token.Bool("special", false), token.Bool("lstrip", false), token.Bool("rstrip", false),
                token.Bool("single_word", false), token.Bool("normalized", true)));
        }
        return Sorted(tokens);
    }

    private static TokenizerConfig ReadAdded(JsonFields fields, TokenizerConfig config)
    {
        List<AddedToken> tokens = [];
        foreach (JsonProperty member in fields.Members)
        {
            int id = fields.OptionalInt(member.Name, 0, LlavaConfig.MaxSize) ?? throw fields.Wrong(member.Name, "null", "a token id");
            bool special = member.Name == config.BosToken || member.Name == config.EosToken || member.Name == config.UnkToken || member.Name == config.PadToken;
            tokens.Add(new AddedToken(member.Name, id, special, false, false, false, Normalized: !special));
        }
        return config with { AddedTokens = Sorted(tokens) };
    }

    private static ImmutableArray<AddedToken> Sorted(List<AddedToken> tokens) => [.. tokens.OrderBy(token => token.Id)];
}
