using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Text;

namespace ConvLLaVA.Cli;

/// <summary>Reads <c>--messages</c>: a JSON list of <c>{"role": …, "content": …}</c>, content a string or a list of OpenAI content
/// parts (<c>text</c>, <c>image_url</c> with a data URL or a local path).</summary>
internal static class MessagesFile
{
    /// <summary>Reads the conversation; <paramref name="images"/> from the command line go to the first user message.</summary>
    /// <exception cref="InvalidInputException">The file is not such a list.</exception>
    public static IReadOnlyList<ChatMessage> Read(string path, IReadOnlyList<ImageInput> images)
    {
        byte[] bytes;
        try
        {
            bytes = File.ReadAllBytes(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"Messages file '{path}' cannot be read: {e.Message}", e);
        }
        try
        {
            using JsonDocument document = JsonDocument.Parse(bytes);
            return Convert(document.RootElement, path, images);
        }
        // A string with half a surrogate pair is well-formed JSON until it is read.
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new InvalidInputException($"Messages file '{path}' is not JSON: {e.Message}", e);
        }
    }

    private static List<ChatMessage> Convert(JsonElement root, string path, IReadOnlyList<ImageInput> images)
    {
        if (root.ValueKind != JsonValueKind.Array || root.GetArrayLength() == 0)
            throw new InvalidInputException($"Messages file '{path}' must hold a JSON list of messages, at least one.");
        var messages = new List<ChatMessage>();
        foreach (JsonElement element in root.EnumerateArray())
        {
            string where = $"Message {messages.Count + 1} of '{path}'";
            if (element.ValueKind != JsonValueKind.Object || !element.TryGetProperty("role", out JsonElement role) || !element.TryGetProperty("content", out JsonElement content))
                throw new InvalidInputException($"{where} must be an object with \"role\" and \"content\".");
            ChatRole speaker = (role.ValueKind == JsonValueKind.String ? role.GetString() : null) switch
            {
                "system" => ChatRole.System,
                "user" => ChatRole.User,
                "assistant" => ChatRole.Assistant,
                var other => throw new InvalidInputException($"{where} has role '{other ?? role.GetRawText()}' but a role is system, user or assistant."),
            };
            messages.Add(Message(speaker, content, where, path));
        }
        if (images.Count == 0) return messages;
        int first = messages.FindIndex(message => message.Role == ChatRole.User);
        if (first < 0) throw new InvalidInputException($"Messages file '{path}' has no user message to put the {images.Count} image(s) of --image into.");
        messages[first] = messages[first] with { Images = [.. images, .. messages[first].Images] };
        return messages;
    }

    private static ChatMessage Message(ChatRole role, JsonElement content, string where, string path)
    {
        if (content.ValueKind == JsonValueKind.String) return new ChatMessage(role, content.GetString()!);
        if (content.ValueKind != JsonValueKind.Array)
            throw new InvalidInputException($"{where} has content of kind {content.ValueKind} but it must be a string or a list of parts.");
        var texts = new List<string>();
        var images = new List<ImageInput>();
        foreach (JsonElement part in content.EnumerateArray())
        {
            string? type = part.ValueKind == JsonValueKind.Object && part.TryGetProperty("type", out JsonElement t) && t.ValueKind == JsonValueKind.String ? t.GetString() : null;
            if (type == "text" && part.TryGetProperty("text", out JsonElement text) && text.ValueKind == JsonValueKind.String) texts.Add(text.GetString()!);
            else if (type == "image_url" && Url(part) is { } url) images.Add(Image(url, where, path));
            else throw new InvalidInputException($"{where} has a content part of type '{type ?? "?"}' but only {{\"type\": \"text\", \"text\": …}} and {{\"type\": \"image_url\", \"image_url\": {{\"url\": …}}}} are understood.");
        }
        if (images.Count > 0 && role != ChatRole.User)
            throw new InvalidInputException($"{where} is from the {role.ToString().ToLowerInvariant()} but only user messages can hold images.");
        return new ChatMessage(role, string.Join('\n', texts)) { Images = images };
    }

    /// <summary><c>image_url</c> is an object with <c>url</c>, or, as some clients write it, the URL itself.</summary>
    private static string? Url(JsonElement part)
    {
        if (!part.TryGetProperty("image_url", out JsonElement image)) return null;
        if (image.ValueKind == JsonValueKind.Object && image.TryGetProperty("url", out JsonElement url)) image = url;
        return image.ValueKind == JsonValueKind.String ? image.GetString() : null;
    }

    private static ImageInput Image(string url, string where, string messagesPath)
    {
        if (url.StartsWith("data:", StringComparison.OrdinalIgnoreCase))
        {
            int comma = url.IndexOf(',');
            if (comma < 0 || !url[..comma].EndsWith(";base64", StringComparison.OrdinalIgnoreCase))
                throw new InvalidInputException($"{where} has a data URL that is not base64: expected 'data:image/…;base64,…'.");
            try
            {
                return ImageInput.FromBytes(System.Convert.FromBase64String(url[(comma + 1)..]), $"{where}, data URL");
            }
            catch (FormatException e)
            {
                throw new InvalidInputException($"{where} has a data URL whose base64 is broken.", e);
            }
        }
        if (url.StartsWith("http:", StringComparison.OrdinalIgnoreCase) || url.StartsWith("https:", StringComparison.OrdinalIgnoreCase))
            throw new InvalidInputException($"{where} names '{url}' but images are not fetched from the network: give a data URL or a local path.");
        string file = url;
        if (url.StartsWith("file:", StringComparison.OrdinalIgnoreCase))
        {
            file = Uri.TryCreate(url, UriKind.Absolute, out Uri? uri) && uri.IsFile
                ? uri.LocalPath
                : throw new InvalidInputException($"{where} names '{url}', which is not a file URL of this machine.");
        }
        // Relative paths stand relative to the messages file, so that a folder of conversations can be moved.
        return ImageInput.FromFile(Path.Combine(Path.GetDirectoryName(Path.GetFullPath(messagesPath)) ?? ".", file));
    }
}
