using System.CommandLine;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Text;

namespace ConvLLaVA.Cli;

/// <summary>The options that say what is asked: images and a prompt, a raw prompt, or a file of messages.</summary>
internal sealed class PromptOptions
{
    private readonly Option<string[]> _images = new("--image", "-i") { Description = "A picture; may be given several times.", HelpName = "FILE", DefaultValueFactory = _ => [] };
    private readonly Option<string?> _prompt = new("--prompt", "-p") { Description = "The question.", HelpName = "TEXT" };
    private readonly Option<string?> _raw = new("--raw") { Description = "The whole prompt with <image> placeholders; no template is applied.", HelpName = "TEXT" };
    private readonly Option<string?> _messages = new("--messages") { Description = "A JSON file with a conversation.", HelpName = "FILE.json" };
    private readonly Option<string> _template = new("--template") { Description = "Conversation template.", DefaultValueFactory = _ => "v1", HelpName = "NAME" };
    private readonly Option<bool> _truncate = new("--truncate") { Description = "Cut a prompt with images at tokenizer_model_max_length, as the original does." };

    /// <summary>Adds the options to <paramref name="command"/>.</summary>
    public void AddTo(Command command)
    {
        foreach (Option option in (Option[])[_images, _prompt, _raw, _messages, _template, _truncate]) command.Add(option);
    }

    /// <summary>The request.</summary>
    /// <exception cref="InvalidInputException">Not exactly one kind of prompt is given, the template is unknown, or the messages file is
    /// broken.</exception>
    public PromptRequest Request(ParseResult parsed)
    {
        IReadOnlyList<ImageInput> images = [.. (parsed.GetValue(_images) ?? []).Select(ImageInput.FromFile)];
        (string? prompt, string? raw, string? messages) = (parsed.GetValue(_prompt), parsed.GetValue(_raw), parsed.GetValue(_messages));
        int given = (prompt is null ? 0 : 1) + (raw is null ? 0 : 1) + (messages is null ? 0 : 1);
        if (given != 1)
            throw new InvalidInputException($"{(given == 0 ? "None" : "More than one")} of --prompt, --raw and --messages was given, but exactly one is needed.");
        ConversationTemplate.Get(parsed.GetValue(_template)!);
        PromptRequest request = prompt is not null ? PromptRequest.Ask(prompt, images)
            : raw is not null ? PromptRequest.Raw(raw, images)
            : PromptRequest.Chat(MessagesFile.Read(messages!, images));
        return request with { Template = parsed.GetValue(_template)!, Truncate = parsed.GetValue(_truncate) };
    }
}
