using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using System.Text.Unicode;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Typed, range-checked reading of one JSON object; every complaint names the file and the field.</summary>
internal readonly struct JsonFields
{
    /// <summary>Configuration files are a few kilobytes: anything beyond this is not one.</summary>
    public const int MaxConfigBytes = 1 << 20;

    private readonly JsonElement _element;

    private JsonFields(JsonElement element, string file)
    {
        _element = element;
        File = file;
    }

    /// <summary>File name for messages.</summary>
    public string File { get; }

    /// <summary>Reads a JSON object file of at most <paramref name="maxBytes"/>.</summary>
    /// <exception cref="InvalidInputException">The file cannot be read, is too large, or is not a JSON object.</exception>
    public static T Load<T>(string path, Func<JsonFields, T> read, long maxBytes = MaxConfigBytes)
    {
        byte[] bytes;
        try
        {
            long length = new FileInfo(path).Length;
            if (length > maxBytes)
            {
                throw new InvalidInputException(string.Create(CultureInfo.InvariantCulture,
                    $"{path} is {length} bytes long, expected a JSON file of at most {maxBytes} bytes."));
            }
            bytes = System.IO.File.ReadAllBytes(path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"{path} cannot be read: {exception.Message}", exception);
        }
        return Parse(bytes, path, read);
    }

    /// <summary>Parses <paramref name="utf8"/>, whose top level must be an object.</summary>
    /// <exception cref="InvalidInputException">The text is not valid UTF-8 JSON with an object on top.</exception>
    public static T Parse<T>(ReadOnlyMemory<byte> utf8, string file, Func<JsonFields, T> read, bool allowDuplicates = true)
    {
        if (utf8.Span.StartsWith("\uFEFF"u8)) utf8 = utf8[3..];
        if (!Utf8.IsValid(utf8.Span)) throw new InvalidInputException($"{file} is not valid UTF-8, expected a JSON object.");
        try
        {
            JsonDocumentOptions options = new() { AllowDuplicateProperties = allowDuplicates, MaxDepth = 32 };
            using JsonDocument document = JsonDocument.Parse(utf8, options);
            if (document.RootElement.ValueKind != JsonValueKind.Object)
            {
                throw new InvalidInputException($"{file} holds a JSON {Kind(document.RootElement)}, expected an object.");
            }
            return read(new JsonFields(document.RootElement, file));
        }
        // InvalidOperationException: a string with half a surrogate pair, which only shows when it is decoded.
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            throw new InvalidInputException($"{file} is not valid JSON: {exception.Message}", exception);
        }
    }

    /// <summary>True when the field is there and not null.</summary>
    public bool Has(string name) => TryGet(name, out _);

    /// <summary>The raw element; false when the field is missing or null.</summary>
    public bool TryGet(string name, out JsonElement value) =>
        _element.TryGetProperty(name, out value) && value.ValueKind is not (JsonValueKind.Null or JsonValueKind.Undefined);

    /// <summary>The members of the object, in file order.</summary>
    public JsonElement.ObjectEnumerator Members => _element.EnumerateObject();

    /// <summary>The nested object, or null when missing.</summary>
    public JsonFields? Object(string name)
    {
        if (!TryGet(name, out JsonElement value)) return null;
        return value.ValueKind == JsonValueKind.Object ? new JsonFields(value, File) : throw Wrong(name, value, "an object");
    }

    /// <summary>Looks into an element that the caller found to be an object.</summary>
    public JsonFields Inside(JsonElement value) => new(value, File);

    /// <summary>An integer within bounds, or <paramref name="missing"/>.</summary>
    public int Int(string name, int missing, int min, int max) => OptionalInt(name, min, max) ?? missing;

    /// <summary>An integer within bounds, or null when missing.</summary>
    public int? OptionalInt(string name, int min, int max) => TryGet(name, out JsonElement value) ? Int(name, value, min, max) : null;

    /// <summary>A list of integers within bounds, or null when missing; a bare integer counts as a list of one when allowed.</summary>
    public ImmutableArray<int>? Ints(string name, int min, int max, int maxCount, bool allowSingle = false)
    {
        if (!TryGet(name, out JsonElement value)) return null;
        if (allowSingle && value.ValueKind == JsonValueKind.Number) return [Int(name, value, min, max)];
        if (value.ValueKind != JsonValueKind.Array || value.GetArrayLength() is 0 || value.GetArrayLength() > maxCount)
        {
            throw Wrong(name, value, string.Create(CultureInfo.InvariantCulture, $"a list of 1 to {maxCount} integers"));
        }
        ImmutableArray<int>.Builder list = ImmutableArray.CreateBuilder<int>();
        foreach (JsonElement item in value.EnumerateArray()) list.Add(Int(name, item, min, max));
        return list.ToImmutable();
    }

    /// <summary>A list of exactly <paramref name="count"/> numbers within bounds, or null when missing.</summary>
    public ImmutableArray<double>? Numbers(string name, int count, double min, double max)
    {
        if (!TryGet(name, out JsonElement value)) return null;
        if (value.ValueKind != JsonValueKind.Array || value.GetArrayLength() != count)
        {
            throw Wrong(name, value, string.Create(CultureInfo.InvariantCulture, $"a list of {count} numbers"));
        }
        ImmutableArray<double>.Builder list = ImmutableArray.CreateBuilder<double>();
        foreach (JsonElement item in value.EnumerateArray()) list.Add(Number(name, item, min, max));
        return list.ToImmutable();
    }

    /// <summary>A finite number within bounds, or <paramref name="missing"/>.</summary>
    public double Number(string name, double missing, double min, double max) =>
        TryGet(name, out JsonElement value) ? Number(name, value, min, max) : missing;

    /// <summary>A Boolean, or <paramref name="missing"/>.</summary>
    public bool Bool(string name, bool missing)
    {
        if (!TryGet(name, out JsonElement value)) return missing;
        return value.ValueKind switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            _ => throw Wrong(name, value, "true or false"),
        };
    }

    /// <summary>A string, or <paramref name="missing"/>.</summary>
    public string? String(string name, string? missing = null)
    {
        if (!TryGet(name, out JsonElement value)) return missing;
        return value.ValueKind == JsonValueKind.String ? value.GetString() : throw Wrong(name, value, "a string");
    }

    /// <summary>The error for a field whose value cannot be used.</summary>
    public InvalidInputException Wrong(string name, JsonElement found, string expected) => Wrong(name, Excerpt(found), expected);

    /// <summary>The error for a field whose value cannot be used.</summary>
    public InvalidInputException Wrong(string name, string found, string expected) =>
        new($"{File}: the field \"{name}\" is {found}, expected {expected}.");

    private int Int(string name, JsonElement value, int min, int max)
    {
        if (value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int number) && number >= min && number <= max) return number;
        throw Wrong(name, value, string.Create(CultureInfo.InvariantCulture, $"an integer from {min} to {max}"));
    }

    private double Number(string name, JsonElement value, double min, double max)
    {
        if (value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out double number) && number >= min && number <= max) return number;
        throw Wrong(name, value, string.Create(CultureInfo.InvariantCulture, $"a number from {min} to {max}"));
    }

    private static string Excerpt(JsonElement value)
    {
        string text = value.GetRawText().ReplaceLineEndings(" ");
        return text.Length <= 80 ? text : text[..77] + "...";
    }

    private static string Kind(JsonElement value) => value.ValueKind.ToString().ToLowerInvariant();
}
