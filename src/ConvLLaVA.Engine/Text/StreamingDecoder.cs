using System.Text;

namespace ConvLLaVA.Engine.Text;

/// <summary>Turns generated ids into text while they come. The parts joined are always exactly
/// <see cref="LlamaTokenizer.Decode"/> of all ids; no part ends inside a character. The work per token does not grow with
/// the answer. For one answer and one thread.</summary>
/// <remarks>The streamer of transformers decodes line by line instead and so loses one leading space of every line after
/// the first ("Here:\n  - item" streams as "Here:\n - item"), and holds words back until the next space. Neither is
/// copied: the text shown here is the text of the finished answer.</remarks>
/// <param name="tokenizer">Whose ids they are.</param>
/// <param name="skipSpecial">Whether special tokens are left out instead of written literally.</param>
public sealed class StreamingDecoder(LlamaTokenizer tokenizer, bool skipSpecial = true)
{
    private readonly PieceDecoder _decoder = new(tokenizer, skipSpecial);
    private readonly StringBuilder _text = new();

    /// <summary>Takes the next id.</summary>
    /// <param name="id">An id of the vocabulary.</param>
    /// <returns>The text that is certain now and was not before; often empty inside a character of several bytes.</returns>
    /// <exception cref="InvalidInputException">The id is not in the vocabulary; the decoder can be used on.</exception>
    public string Append(int id)
    {
        _decoder.Append(id, _text);
        return Take();
    }

    /// <summary>Ends the text.</summary>
    /// <returns>What was held back: U+FFFD for each byte of an unfinished character, or nothing.</returns>
    public string Flush()
    {
        _decoder.Finish(_text);
        return Take();
    }

    private string Take()
    {
        string text = _text.ToString();
        _text.Clear();
        return text;
    }
}
