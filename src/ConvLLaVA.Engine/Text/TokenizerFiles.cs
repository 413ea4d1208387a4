using System.Text.Json;

namespace ConvLLaVA.Engine.Text;

/// <summary>What the JSON files beside a <c>tokenizer.model</c> say, as far as encoding and decoding depend on it. All of
/// them may be missing; the defaults are those of transformers' <c>LlamaTokenizer</c>.</summary>
internal sealed class TokenizerFiles
{
    private const string ConfigFile = "tokenizer_config.json";
    private const string SpecialFile = "special_tokens_map.json";
    private const string AddedFile = "added_tokens.json";

    public bool Legacy { get; private set; } = true;
    public bool AddBos { get; private set; } = true;
    public bool AddEos { get; private set; }
    public AddedToken Bos { get; private set; } = new("<s>", Special: true);
    public AddedToken Eos { get; private set; } = new("</s>", Special: true);
    public AddedToken Unk { get; private set; } = new("<unk>", Special: true);
    public AddedToken? Pad { get; private set; }
    public List<AddedToken> Additional { get; private set; } = [];

    /// <summary>Tokens the files give an id, in order of it.</summary>
    public SortedDictionary<int, AddedToken> Numbered { get; } = [];

    public static TokenizerFiles Read(string directory)
    {
        TokenizerFiles files = new();
        using JsonDocument? config = Open(directory, ConfigFile);
        using JsonDocument? special = Open(directory, SpecialFile);
        using JsonDocument? added = Open(directory, AddedFile);
        string file = ConfigFile;
        try
        {
            if (config is not null) files.ReadConfig(config.RootElement);
            file = SpecialFile;
            if (special is not null) files.ReadNamed(special.RootElement);
            file = AddedFile;
            if (added is not null) files.ReadAdded(added.RootElement);
        }
        catch (Exception error) when (error is FormatException or InvalidOperationException)
        {
            // InvalidOperationException: a text with half a surrogate pair, which JSON can escape but .NET not read.
            throw new InvalidInputException($"{Path.Combine(directory, file)} cannot be used: {error.Message.TrimEnd('.')}.", error);
        }
        return files;
    }

    private static JsonDocument? Open(string directory, string name)
    {
        string path = Path.Combine(directory, name);
        try
        {
            JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(path));
            if (document.RootElement.ValueKind == JsonValueKind.Object) return document;
            document.Dispose();
            throw new InvalidInputException($"{path} must hold one JSON object.");
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
        catch (JsonException error)
        {
            throw new InvalidInputException($"{path} is not valid JSON: {error.Message}", error);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"{path} cannot be read: {error.Message}", error);
        }
    }

    private void ReadConfig(JsonElement config)
    {
        Legacy = Flag(config, "legacy") ?? true;
        AddBos = Flag(config, "add_bos_token") ?? true;
        AddEos = Flag(config, "add_eos_token") ?? false;
        ReadNamed(config);
        if (!config.TryGetProperty("added_tokens_decoder", out JsonElement decoder) || decoder.ValueKind == JsonValueKind.Null) return;
        if (decoder.ValueKind != JsonValueKind.Object) throw new FormatException("added_tokens_decoder must be an object");
        foreach (JsonProperty entry in decoder.EnumerateObject())
        {
            if (!int.TryParse(entry.Name, System.Globalization.NumberStyles.None, null, out int id)) throw new FormatException($"the id '{entry.Name}' in added_tokens_decoder is not a number");
            Numbered[id] = Token(entry.Value, entry.Name) ?? throw new FormatException($"added_tokens_decoder has no token for id {id}");
        }
    }

    private void ReadNamed(JsonElement map)
    {
        Bos = Named(map, "bos_token") ?? Bos;
        Eos = Named(map, "eos_token") ?? Eos;
        Unk = Named(map, "unk_token") ?? Unk;
        Pad = Named(map, "pad_token") ?? Pad;
        if (!map.TryGetProperty("additional_special_tokens", out JsonElement list) || list.ValueKind == JsonValueKind.Null) return;
        if (list.ValueKind != JsonValueKind.Array) throw new FormatException("additional_special_tokens must be a list");
        Additional = [.. list.EnumerateArray().Select(entry => Token(entry, "additional_special_tokens")).OfType<AddedToken>().Select(token => token with { Special = true })];
    }

    private void ReadAdded(JsonElement map)
    {
        HashSet<string> special = [.. new[] { Bos, Eos, Unk, Pad }.OfType<AddedToken>().Concat(Additional).Select(token => token.Content)];
        foreach (JsonProperty entry in map.EnumerateObject())
        {
            if (entry.Value.ValueKind != JsonValueKind.Number || !entry.Value.TryGetInt32(out int id) || id < 0) throw new FormatException($"the id of '{entry.Name}' must be a whole number of at least 0");
            if (entry.Name.Length == 0) throw new FormatException("a token is empty");
            if (!Numbered.TryAdd(id, new AddedToken(entry.Name, special.Contains(entry.Name))) && Numbered[id].Content != entry.Name) throw new FormatException($"the id {id} belongs to '{Numbered[id].Content}' and to '{entry.Name}'");
        }
    }

    private static bool? Flag(JsonElement config, string name)
    {
        if (!config.TryGetProperty(name, out JsonElement value)) return null;
        return value.ValueKind switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            JsonValueKind.Null => null,
            _ => throw new FormatException($"{name} must be true or false"),
        };
    }

    private static AddedToken? Named(JsonElement map, string name)
        => map.TryGetProperty(name, out JsonElement value) && Token(value, name) is { } token ? token with { Special = true } : null;

    private static AddedToken? Token(JsonElement value, string name)
    {
        if (value.ValueKind == JsonValueKind.Null) return null;
        JsonElement content = value;
        if (value.ValueKind == JsonValueKind.Object && !value.TryGetProperty("content", out content)) throw new FormatException($"the token {name} has no content");
        if (content.ValueKind != JsonValueKind.String || content.GetString() is not { Length: > 0 } text) throw new FormatException($"the token {name} must be a text that is not empty");
        if (value.ValueKind != JsonValueKind.Object) return new AddedToken(text, Special: false);
        if (Flag(value, "single_word") == true) throw new FormatException($"the token {name} has single_word set, which is not supported");
        return new AddedToken(text, Flag(value, "special") ?? false, Flag(value, "lstrip") ?? false, Flag(value, "rstrip") ?? false);
    }
}
