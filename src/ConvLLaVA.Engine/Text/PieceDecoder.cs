using System.Text;

namespace ConvLLaVA.Engine.Text;

/// <summary>What decoding does with a token.</summary>
internal enum TokenKind
{
    /// <summary>Writes its text.</summary>
    Text,

    /// <summary>Adds one byte to the character being put together.</summary>
    Byte,

    /// <summary>Writes nothing: a control piece that no file names as special.</summary>
    Silent,

    /// <summary>Is left out, or written literally.</summary>
    Special,

    /// <summary>An added token that is not special: always written literally.</summary>
    Literal,
}

/// <summary>Decodes ids one after the other into text. At any time it has written all the text that no later id can
/// change: what it holds back are at most three bytes of an unfinished UTF-8 character.</summary>
/// <param name="tokenizer">Whose ids they are.</param>
/// <param name="skipSpecial">Whether special tokens are left out instead of written literally.</param>
/// <remarks>Differences to transformers remain only where special or added tokens are written literally: it puts
/// spaces around those beyond the stock vocabulary, and with <c>legacy=true</c> before all of them.</remarks>
internal sealed class PieceDecoder(LlamaTokenizer tokenizer, bool skipSpecial)
{
    private readonly byte[] _pending = new byte[4];
    private int _pendingCount;

    // transformers takes one leading space off the first piece. With legacy=true SentencePiece, which then has its own
    // dummy prefix, takes another one off the first text it sees.
    private bool _firstPiece = true;
    private bool _dummyPrefix = tokenizer.DummyPrefix;

    /// <summary>Takes the next id and writes the text that is certain now.</summary>
    /// <exception cref="InvalidInputException">The id is not in the vocabulary; nothing was changed.</exception>
    public void Append(int id, StringBuilder text)
    {
        (TokenKind kind, string piece) = tokenizer.Decoded(id);
        if (kind == TokenKind.Special && skipSpecial) return;
        bool first = _firstPiece;
        _firstPiece = false;
        switch (kind)
        {
            case TokenKind.Byte:
                _pending[_pendingCount++] = (byte)piece[0];
                WriteCharacters(text, final: false);
                return;
            case TokenKind.Text:
                Finish(text);
                WriteText(piece, first, text);
                return;
            case TokenKind.Silent:
                Finish(text);
                return;
            default:
                Finish(text);
                text.Append(piece);
                _dummyPrefix = tokenizer.DummyPrefix;
                return;
        }
    }

    /// <summary>Writes what was held back: each byte of an unfinished character becomes U+FFFD.</summary>
    public void Finish(StringBuilder text) => WriteCharacters(text, final: true);

    private void WriteText(string piece, bool first, StringBuilder text)
    {
        int start = first && piece.StartsWith(' ') ? 1 : 0;
        if (_dummyPrefix && start < piece.Length)
        {
            if (piece[start] == ' ') start++;
            _dummyPrefix = false;
        }
        text.Append(piece, start, piece.Length - start);
    }

    private void WriteCharacters(StringBuilder text, bool final)
    {
        Span<char> utf16 = stackalloc char[2];
        int start = 0;
        while (start < _pendingCount)
        {
            System.Buffers.OperationStatus status = Rune.DecodeFromUtf8(_pending.AsSpan(start, _pendingCount - start), out Rune rune, out int length);
            if (status == System.Buffers.OperationStatus.NeedMoreData && !final) break;

            // SentencePiece writes one U+FFFD for every byte that begins no character, .NET one for several.
            if (status != System.Buffers.OperationStatus.Done) (rune, length) = (Rune.ReplacementChar, 1);
            text.Append(utf16[..rune.EncodeToUtf16(utf16)]);
            start += length;
            _dummyPrefix = false;
        }
        _pending.AsSpan(start, _pendingCount - start).CopyTo(_pending);
        _pendingCount -= start;
    }
}
