namespace ConvLLaVA.Engine.Text;

/// <summary>Who speaks in a turn.</summary>
public enum ChatRole
{
    /// <summary>Instructions that replace the template's own; only as first turn.</summary>
    System,

    /// <summary>The person.</summary>
    User,

    /// <summary>The model.</summary>
    Assistant,
}

/// <summary>One turn of a conversation.</summary>
/// <param name="Role">Who speaks.</param>
/// <param name="Text">What is said; null as the last turn of the assistant for the answer that is to be generated.</param>
public sealed record ChatTurn(ChatRole Role, string? Text)
{
    /// <summary>A finished answer for the history: the generated ids decoded without special tokens and stripped.
    /// (The original's command line decodes the wrong part of the ids, so its history is empty.)</summary>
    /// <param name="tokenizer">The tokenizer of the model that answered.</param>
    /// <param name="generated">The generated ids, without the prompt.</param>
    /// <exception cref="InvalidInputException">An id is not in the vocabulary.</exception>
    public static ChatTurn Answer(LlamaTokenizer tokenizer, ReadOnlySpan<int> generated)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        return new ChatTurn(ChatRole.Assistant, PythonText.Strip(tokenizer.Decode(generated)));
    }
}
