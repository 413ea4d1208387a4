using System.Text;

namespace ConvLLaVA.Engine.Text;

/// <summary>How a template puts its turns together.</summary>
public enum SeparatorStyle
{
    /// <summary><c>Role: text</c> and the separator after every turn.</summary>
    Single,

    /// <summary><c>Role: text</c>, the first separator after user turns and the second after answers.</summary>
    Two,

    /// <summary>ChatML as MPT uses it: role and text directly joined.</summary>
    Mpt,

    /// <summary>Only the texts, no roles.</summary>
    Plain,

    /// <summary>Llama-2's <c>[INST] … [/INST]</c>.</summary>
    Llama2,
}

/// <summary>A way to write a conversation as one prompt, as in the original's <c>conversation.py</c>.</summary>
public sealed record ConversationTemplate
{
    private const string MptSystemHeader = "<|im_start|>system\n";

    /// <summary>The names a template is known by.</summary>
    public required IReadOnlyList<string> TemplateNames { get; init; }

    /// <summary>The instructions in front of the conversation.</summary>
    public required string System { get; init; }

    /// <summary>How the person is called in the prompt.</summary>
    public required string UserRole { get; init; }

    /// <summary>How the model is called in the prompt.</summary>
    public required string AssistantRole { get; init; }

    /// <summary>How the turns are put together.</summary>
    public required SeparatorStyle Style { get; init; }

    /// <summary>The separator, after user turns where there are two.</summary>
    public required string Sep { get; init; }

    /// <summary>The separator after answers, or null.</summary>
    public string? Sep2 { get; init; }

    /// <summary>The original's version label.</summary>
    public string Version { get; init; } = "Unknown";

    /// <summary>Turns that stand before every conversation.</summary>
    public IReadOnlyList<ChatTurn> CannedTurns { get; init; } = [];

    /// <summary>Number of canned turns, the original's <c>offset</c>.</summary>
    public int Offset => CannedTurns.Count;

    /// <summary>The text after which an answer is over: what the training put behind answers. The original's command line
    /// takes <c>&lt;s&gt;</c> for the Llama-2 style, which no answer ends with; here it is <c>&lt;/s&gt;</c>.</summary>
    public string StopString => Style is SeparatorStyle.Two or SeparatorStyle.Llama2 ? Sep2 ?? Sep : Sep;

    /// <summary>All known names, in the order of the original.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. ConversationTemplates.All.SelectMany(template => template.TemplateNames)];

    /// <summary>The template that all ConvLLaVA models were trained with: <c>v1</c>.</summary>
    public static ConversationTemplate Default { get; } = Get("v1");

    /// <summary>Finds a template.</summary>
    /// <param name="name">One of <see cref="Names"/>.</param>
    /// <exception cref="InvalidInputException">There is no such template.</exception>
    public static ConversationTemplate Get(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return ConversationTemplates.All.FirstOrDefault(template => template.TemplateNames.Contains(name))
            ?? throw new InvalidInputException($"There is no conversation template '{name}'; the known ones are {string.Join(", ", Names)}.");
    }

    /// <summary>Writes the prompt for the next answer: like <see cref="Render"/>, with an open assistant turn added where
    /// the last turn is the user's.</summary>
    /// <param name="turns">The conversation so far.</param>
    /// <exception cref="InvalidInputException">As for <see cref="Render"/>.</exception>
    public string RenderForAnswer(IReadOnlyList<ChatTurn> turns)
    {
        ArgumentNullException.ThrowIfNull(turns);
        return turns is [.., { Role: ChatRole.User }] ? Render([.. turns, new ChatTurn(ChatRole.Assistant, null)]) : Render(turns);
    }

    /// <summary>Writes a conversation as a prompt.</summary>
    /// <param name="turns">Optionally a system turn, then user and assistant in turn. An assistant turn without text
    /// (null only as last one) gives the role alone.</param>
    /// <exception cref="InvalidInputException">The turns are not in that order, or this template cannot express
    /// them.</exception>
    public string Render(IReadOnlyList<ChatTurn> turns)
    {
        ArgumentNullException.ThrowIfNull(turns);
        string system = System;
        if (turns is [{ Role: ChatRole.System } replacement, ..])
        {
            system = (Style == SeparatorStyle.Mpt ? MptSystemHeader : "") + replacement.Text;
            turns = [.. turns.Skip(1)];
        }
        Check(turns);
        ChatTurn[] all = [.. CannedTurns, .. turns];
        return Style switch
        {
            SeparatorStyle.Single => RenderRoles(system, all, Sep, Sep),
            SeparatorStyle.Two => RenderRoles(system, all, Sep, Sep2 ?? Sep),
            SeparatorStyle.Mpt => RenderMpt(system, all),
            SeparatorStyle.Plain => RenderPlain(system, all),
            _ => RenderLlama2(system, all),
        };
    }

    /// <summary>Puts one image at the start of a conversation the way the original's web page does: the first user text,
    /// freed of placeholders and stripped, gets <c>&lt;image&gt;\n</c> in front; the <c>mmtag</c> templates get two turns of
    /// their own for the image instead.</summary>
    /// <param name="turns">A conversation without image.</param>
    /// <exception cref="InvalidInputException">The conversation has no user turn, or one without text.</exception>
    public IReadOnlyList<ChatTurn> WithLeadingImage(IReadOnlyList<ChatTurn> turns)
    {
        ArgumentNullException.ThrowIfNull(turns);
        int at = turns is [{ Role: ChatRole.System }, ..] ? 1 : 0;
        if (turns.Count <= at || turns[at] is not { Role: ChatRole.User, Text: { } text }) throw new InvalidInputException("An image needs a user turn with text at the start of the conversation.");
        text = PythonText.Strip(text.Replace(LlamaTokenizer.ImagePlaceholder, ""));
        List<ChatTurn> all = [.. turns];
        if (Version.Contains("mmtag", StringComparison.Ordinal))
        {
            all[at] = new ChatTurn(ChatRole.User, text);
            all.InsertRange(at, [new ChatTurn(ChatRole.User, $"<Image>{LlamaTokenizer.ImagePlaceholder}</Image>"), new ChatTurn(ChatRole.Assistant, "Received.")]);
        }
        else
        {
            all[at] = new ChatTurn(ChatRole.User, LlamaTokenizer.ImagePlaceholder + "\n" + text);
        }
        return all;
    }

    private static void Check(IReadOnlyList<ChatTurn> turns)
    {
        for (int i = 0; i < turns.Count; i++)
        {
            ChatRole expected = i % 2 == 0 ? ChatRole.User : ChatRole.Assistant;
            if (turns[i].Role == ChatRole.System) throw new InvalidInputException("Only the first turn of a conversation can be a system turn.");
            if (turns[i].Role != expected) throw new InvalidInputException($"User and assistant must take turns, beginning with the user, but turn {i + 1} is by the {(turns[i].Role == ChatRole.User ? "user" : "assistant")}.");
            if (turns[i].Text is null && (expected == ChatRole.User || i < turns.Count - 1)) throw new InvalidInputException($"Turn {i + 1} of the conversation has no text; only the answer at the end can be missing.");
        }
    }

    private string RoleOf(int turn) => turn % 2 == 0 ? UserRole : AssistantRole;

    private string RenderRoles(string system, ChatTurn[] turns, string afterUser, string afterAssistant)
    {
        StringBuilder prompt = new(system + Sep);
        for (int i = 0; i < turns.Length; i++)
        {
            prompt.Append(RoleOf(i)).Append(':');
            if (!string.IsNullOrEmpty(turns[i].Text)) prompt.Append(' ').Append(turns[i].Text).Append(i % 2 == 0 ? afterUser : afterAssistant);
        }
        return prompt.ToString();
    }

    private string RenderMpt(string system, ChatTurn[] turns)
    {
        StringBuilder prompt = new(system + Sep);
        for (int i = 0; i < turns.Length; i++)
        {
            prompt.Append(RoleOf(i));
            if (!string.IsNullOrEmpty(turns[i].Text)) prompt.Append(turns[i].Text).Append(Sep);
        }
        return prompt.ToString();
    }

    private string RenderPlain(string system, ChatTurn[] turns)
    {
        StringBuilder prompt = new(system);
        for (int i = 0; i < turns.Length; i++)
        {
            if (string.IsNullOrEmpty(turns[i].Text)) continue;
            string? separator = i % 2 == 0 ? Sep : Sep2;
            prompt.Append(turns[i].Text).Append(separator ?? throw new InvalidInputException(
                $"The template {TemplateNames[0]} has no separator after answers, so it cannot hold a conversation with an answer in it."));
        }
        return prompt.ToString();
    }

    private string RenderLlama2(string system, ChatTurn[] turns)
    {
        if (turns.Length > 0 && string.IsNullOrEmpty(turns[0].Text)) throw new InvalidInputException($"The template {TemplateNames[0]} needs a text in the first user turn.");
        StringBuilder prompt = new();
        for (int i = 0; i < turns.Length; i++)
        {
            if (string.IsNullOrEmpty(turns[i].Text)) continue;
            string instructions = i == 0 && system.Length > 0 ? $"<<SYS>>\n{system}\n<</SYS>>\n\n" : "";
            if (i % 2 == 0) prompt.Append($"{Sep}[INST] {instructions}{turns[i].Text} [/INST]");
            else prompt.Append($" {turns[i].Text} {Sep2}");
        }

        // Python's lstrip takes the separator as a set of characters, not as a prefix.
        return prompt.ToString().TrimStart([.. Sep]);
    }
}
