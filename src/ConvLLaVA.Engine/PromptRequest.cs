using ConvLLaVA.Engine.Text;

namespace ConvLLaVA.Engine;

/// <summary>A picture to ask about, still encoded; it is decoded when the request runs.</summary>
public sealed class ImageInput
{
    private readonly byte[]? _data;

    private ImageInput(string name, byte[]? data)
    {
        Name = name;
        _data = data;
    }

    /// <summary>Path or given name, for messages.</summary>
    public string Name { get; }

    /// <summary>A JPEG, PNG, WebP, GIF or BMP file; told apart by content, not by name.</summary>
    public static ImageInput FromFile(string path) => new(path, null);

    /// <summary>The bytes of such a file.</summary>
    public static ImageInput FromBytes(byte[] data, string name = "image") => new(name, data);

    /// <summary>The encoded bytes.</summary>
    /// <exception cref="InvalidInputException">The file cannot be read.</exception>
    internal byte[] Read()
    {
        if (_data is not null) return _data;
        try
        {
            return File.ReadAllBytes(Name);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            string why = e is FileNotFoundException or DirectoryNotFoundException ? "there is no such file" : e.Message;
            throw new InvalidInputException($"Image '{Name}' cannot be read: {why}.", e);
        }
    }
}

/// <summary>One message of a conversation.</summary>
/// <param name="Role">Who speaks.</param>
/// <param name="Text">What is said. It may hold <c>&lt;image&gt;</c> placeholders, as many as there are pictures; without any,
/// the pictures come first.</param>
public sealed record ChatMessage(ChatRole Role, string Text)
{
    /// <summary>Pictures of this message (user messages only).</summary>
    public IReadOnlyList<ImageInput> Images { get; init; } = [];
}

/// <summary>What to answer: a conversation rendered through a template, or a whole prompt as it is.</summary>
public sealed record PromptRequest
{
    private PromptRequest() { }

    /// <summary>The conversation, when the request has one; the last message is the user's.</summary>
    public IReadOnlyList<ChatMessage>? Messages { get; private init; }

    /// <summary>The whole prompt, when no template is to be used.</summary>
    public string? RawPrompt { get; private init; }

    /// <summary>Pictures of a raw prompt, one for each <c>&lt;image&gt;</c> in it.</summary>
    public IReadOnlyList<ImageInput> RawImages { get; private init; } = [];

    /// <summary>Conversation template; <c>v1</c> is what ConvLLaVA was trained with.</summary>
    public string Template { get; init; } = "v1";

    /// <summary>Cut the expanded prompt of a request with pictures after <c>tokenizer_model_max_length</c> tokens, as the original
    /// silently does (it never cuts text alone); otherwise a longer prompt runs whole, with a warning.</summary>
    public bool Truncate { get; init; }

    /// <summary>One question about any number of pictures.</summary>
    public static PromptRequest Ask(string question, params IReadOnlyList<ImageInput> images)
        => new() { Messages = [new ChatMessage(ChatRole.User, question) { Images = images }] };

    /// <summary>A conversation whose last message is the user's.</summary>
    public static PromptRequest Chat(IReadOnlyList<ChatMessage> messages) => new() { Messages = messages };

    /// <summary>A prompt used exactly as given.</summary>
    public static PromptRequest Raw(string prompt, params IReadOnlyList<ImageInput> images)
        => new() { RawPrompt = prompt, RawImages = images };
}
