using System.Buffers.Binary;
using System.Text;

namespace ConvLLaVA.Engine.Synthetic;

/// <summary>A SentencePiece BPE vocabulary made by rule, with the stock LLaMA one's settings: control tokens, 256 byte pieces,
/// pieces of two letters and more with falling scores, single characters last. Every piece can be reached by merges.</summary>
internal static class SyntheticVocabulary
{
    private const int Normal = 1, Unknown = 2, Control = 3, Byte = 6;
    private const string Letters = "etaoinshrdlcumwfgypbvkjxqz"; // by frequency, so that common pairs get the best scores
    private const char Space = '\u2581';

    /// <summary>The serialised model of <paramref name="size"/> pieces, at least 400.</summary>
    public static byte[] Build(int size)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(size, 400);
        string[] characters = [.. Characters()];
        var model = new MemoryStream();
        Piece(model, "<unk>", 0, Unknown);
        Piece(model, "<s>", 0, Control);
        Piece(model, "</s>", 0, Control);
        for (int value = 0; value < 256; value++) Piece(model, $"<0x{value:X2}>", 0, Byte);
        int normal = 0;
        foreach (string piece in Merges().Take(size - 259 - characters.Length).Concat(characters)) Piece(model, piece, -normal++, Normal);

        var trainer = new MemoryStream();
        Number(trainer, 3, 2); // model_type BPE
        Number(trainer, 4, size);
        Number(trainer, 24, 0); // treat_whitespace_as_suffix
        Number(trainer, 25, 1); // split_digits
        Number(trainer, 35, 1); // byte_fallback
        Number(trainer, 40, 0); // unk_id
        Number(trainer, 41, 1); // bos_id
        Number(trainer, 42, 2); // eos_id
        Number(trainer, 43, -1); // pad_id: none
        Text(trainer, 44, " \u2047 "); // unk_surface
        Message(model, 2, trainer);
        var normalizer = new MemoryStream();
        Text(normalizer, 1, "identity");
        Number(normalizer, 3, 1); // add_dummy_prefix
        Number(normalizer, 4, 0); // remove_extra_whitespaces
        Number(normalizer, 5, 1); // escape_whitespaces
        Message(model, 3, normalizer);
        return model.ToArray();
    }

    /// <summary>Pairs, then triples, then longer pieces: each is a shorter one and a letter, so merging reaches it.</summary>
    private static IEnumerable<string> Merges()
    {
        string starts = Space + Letters;
        List<string> last = [.. starts.Select(c => c.ToString())];
        while (true)
        {
            List<string> next = [];
            foreach (string stem in last)
            {
                foreach (char letter in Letters)
                {
                    yield return stem + letter;
                    next.Add(stem + letter);
                }
            }
            last = next;
        }
    }

    private static IEnumerable<string> Characters()
    {
        yield return Space.ToString();
        for (char c = '!'; c <= '~'; c++) yield return c.ToString();
    }

    private static void Piece(MemoryStream model, string text, float score, int type)
    {
        var piece = new MemoryStream();
        Text(piece, 1, text);
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteSingleLittleEndian(bytes, score);
        piece.WriteByte((2 << 3) | 5);
        piece.Write(bytes);
        Number(piece, 3, type);
        Message(model, 1, piece);
    }

    private static void Number(MemoryStream stream, int field, long value)
    {
        Varint(stream, (ulong)field << 3);
        Varint(stream, (ulong)value);
    }

    private static void Text(MemoryStream stream, int field, string value) => Message(stream, field, new MemoryStream(Encoding.UTF8.GetBytes(value)));

    private static void Message(MemoryStream stream, int field, MemoryStream content)
    {
        Varint(stream, ((ulong)field << 3) | 2);
        Varint(stream, (ulong)content.Length);
        content.WriteTo(stream);
    }

    private static void Varint(MemoryStream stream, ulong value)
    {
        for (; value >= 0x80; value >>= 7) stream.WriteByte((byte)(value | 0x80));
        stream.WriteByte((byte)value);
    }
}
