using System.Text;

namespace ConvLLaVA.Engine.Tests.Text;

/// <summary>Writes SentencePiece model files of any kind, also kinds that must be refused.</summary>
internal sealed class ModelWriter
{
    public List<(string Piece, float Score, int Type)> Pieces { get; } =
    [
        ("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3),
        .. Enumerable.Range(0, 256).Select(value => ($"<0x{value:X2}>", 0f, 6)),
    ];

    public int ModelType { get; set; } = 2;
    public bool ByteFallback { get; set; } = true;
    public bool AddDummyPrefix { get; set; } = true;
    public bool RemoveExtraWhitespaces { get; set; }
    public bool EscapeWhitespaces { get; set; } = true;
    public bool WhitespaceAsSuffix { get; set; }
    public string CharsMap { get; set; } = "";

    public ModelWriter With(params (string Piece, float Score)[] pieces)
    {
        Pieces.AddRange(pieces.Select(piece => (piece.Piece, piece.Score, 1)));
        return this;
    }

    public byte[] Build()
    {
        MemoryStream model = new();
        foreach ((string piece, float score, int type) in Pieces)
        {
            MemoryStream entry = new();
            Message(entry, 1, Encoding.UTF8.GetBytes(piece));
            Varint(entry, (2 << 3) | 5);
            entry.Write(BitConverter.GetBytes(score));
            Number(entry, 3, type);
            Message(model, 1, entry.ToArray());
        }
        MemoryStream trainer = new();
        Number(trainer, 3, ModelType);
        Number(trainer, 24, WhitespaceAsSuffix ? 1 : 0);
        Number(trainer, 35, ByteFallback ? 1 : 0);
        Message(model, 2, trainer.ToArray());
        MemoryStream normalizer = new();
        Message(normalizer, 1, "identity"u8);
        Message(normalizer, 2, Encoding.UTF8.GetBytes(CharsMap));
        Number(normalizer, 3, AddDummyPrefix ? 1 : 0);
        Number(normalizer, 4, RemoveExtraWhitespaces ? 1 : 0);
        Number(normalizer, 5, EscapeWhitespaces ? 1 : 0);
        Message(model, 3, normalizer.ToArray());
        return model.ToArray();
    }

    private static void Number(MemoryStream stream, int field, int value)
    {
        Varint(stream, (uint)field << 3);
        Varint(stream, (uint)value);
    }

    private static void Message(MemoryStream stream, int field, ReadOnlySpan<byte> content)
    {
        Varint(stream, ((uint)field << 3) | 2);
        Varint(stream, (uint)content.Length);
        stream.Write(content);
    }

    private static void Varint(MemoryStream stream, uint value)
    {
        for (; value >= 0x80; value >>= 7) stream.WriteByte((byte)(value | 0x80));
        stream.WriteByte((byte)value);
    }
}
