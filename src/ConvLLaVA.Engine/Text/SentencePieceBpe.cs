using System.Buffers;
using System.Text;

namespace ConvLLaVA.Engine.Text;

/// <summary>Turns text into ids with the merges of a <see cref="SentencePieceModel"/>: always the adjacent pair whose
/// joined text is the normal piece of highest score, the leftmost of equal ones; what is no piece in the end becomes
/// byte tokens. Same ids as SentencePiece; O(n log n). Safe to use from several threads.</summary>
internal sealed class SentencePieceBpe(SentencePieceModel model)
{
    /// <summary>SentencePiece's stand-in for a space, U+2581.</summary>
    public const char Space = '\u2581';

    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _lookup = model.Lookup();

    /// <summary>Encodes one stretch of text without special tokens and appends the ids.</summary>
    /// <param name="text">Any UTF-16; a lone surrogate counts as U+FFFD, a space as '▁'.</param>
    /// <param name="prefix">Whether to put a '▁' in front (of text that is not empty).</param>
    /// <param name="ids">Receives the ids.</param>
    public void Encode(ReadOnlySpan<char> text, bool prefix, List<int> ids)
    {
        if (text.IsEmpty) return;
        int extra = prefix ? 1 : 0;
        int length = text.Length + extra;
        char[] charPool = ArrayPool<char>.Shared.Rent(length);
        Symbol[] symbolPool = ArrayPool<Symbol>.Shared.Rent(length);
        Span<char> chars = charPool.AsSpan(0, length);
        if (prefix) chars[0] = Space;
        Normalise(text, chars[extra..]);
        Span<Symbol> symbols = symbolPool.AsSpan(0, SplitIntoSymbols(chars, symbolPool));
        Merge(chars, symbols);
        Emit(chars, symbols, ids);
        ArrayPool<char>.Shared.Return(charPool);
        ArrayPool<Symbol>.Shared.Return(symbolPool);
    }

    private static void Normalise(ReadOnlySpan<char> text, Span<char> chars)
    {
        for (int i = 0; i < text.Length; i++)
        {
            char c = text[i];
            if (char.IsHighSurrogate(c) && i + 1 < text.Length && char.IsLowSurrogate(text[i + 1]))
            {
                chars[i] = c;
                chars[++i] = text[i];
            }
            else
            {
                chars[i] = c == ' ' ? Space : char.IsSurrogate(c) ? '\uFFFD' : c;
            }
        }
    }

    private static int SplitIntoSymbols(ReadOnlySpan<char> chars, Span<Symbol> symbols)
    {
        int count = 0;
        for (int i = 0; i < chars.Length; i += symbols[count++].Length)
        {
            symbols[count] = new Symbol { Start = i, Length = char.IsHighSurrogate(chars[i]) ? 2 : 1, Previous = count - 1, Next = count + 1 };
        }
        symbols[count - 1].Next = -1;
        return count;
    }

    private void Merge(ReadOnlySpan<char> chars, Span<Symbol> symbols)
    {
        PriorityQueue<(int Right, int Length), ulong> queue = new(symbols.Length);
        for (int left = 0; left + 1 < symbols.Length; left++) Consider(left, symbols, chars);
        while (queue.TryDequeue(out (int Right, int Length) pair, out ulong priority))
        {
            int at = (int)(uint)priority;
            ref Symbol left = ref symbols[at];
            ref Symbol right = ref symbols[pair.Right];

            // One of the two was merged with another neighbour since: then the pair no longer exists.
            if (left.Length == 0 || right.Length == 0 || left.Length + right.Length != pair.Length) continue;

            left.Length = pair.Length;
            left.Next = right.Next;
            right.Length = 0;
            if (left.Next >= 0) symbols[left.Next].Previous = at;
            if (left.Previous >= 0) Consider(left.Previous, symbols, chars);
            if (left.Next >= 0) Consider(at, symbols, chars);
        }

        void Consider(int left, Span<Symbol> symbols, ReadOnlySpan<char> chars)
        {
            int right = symbols[left].Next;
            int length = symbols[left].Length + symbols[right].Length;
            if (length > model.LongestPiece) return;
            if (!TryNormalPiece(chars.Slice(symbols[left].Start, length), out int id)) return;
            queue.Enqueue((right, length), Priority(model.Score(id), left));
        }
    }

    /// <summary>One number that sorts by falling score, then from left to right.</summary>
    private static ulong Priority(float score, int left)
    {
        // Adding zero turns -0 into +0: they are equal scores but different bits.
        uint bits = BitConverter.SingleToUInt32Bits(score + 0f);
        uint rising = bits >> 31 == 1 ? ~bits : bits | 0x8000_0000;
        return ((ulong)~rising << 32) | (uint)left;
    }

    private bool TryNormalPiece(ReadOnlySpan<char> text, out int id)
        => _lookup.TryGetValue(text, out id) && model.TypeOf(id) == PieceType.Normal;

    private void Emit(ReadOnlySpan<char> chars, ReadOnlySpan<Symbol> symbols, List<int> ids)
    {
        Span<byte> utf8 = stackalloc byte[4];
        for (int i = 0; i >= 0; i = symbols[i].Next)
        {
            ReadOnlySpan<char> text = chars.Slice(symbols[i].Start, symbols[i].Length);
            if (TryNormalPiece(text, out int id))
            {
                ids.Add(id);
                continue;
            }
            int count = Encoding.UTF8.GetBytes(text, utf8);
            foreach (byte value in utf8[..count]) ids.Add(model.ByteId(value));
        }
    }

    /// <summary>A stretch of the text in a doubly linked list; Length 0 = swallowed by its left neighbour.</summary>
    private struct Symbol
    {
        public int Start;
        public int Length;
        public int Previous;
        public int Next;
    }
}
