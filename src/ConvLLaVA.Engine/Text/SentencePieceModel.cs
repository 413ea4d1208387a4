using System.Text;

namespace ConvLLaVA.Engine.Text;

/// <summary>Kinds of vocabulary entries, numbered as in <c>sentencepiece_model.proto</c>.</summary>
public enum PieceType
{
    /// <summary>Ordinary text, built by merges.</summary>
    Normal = 1,

    /// <summary>The unknown symbol.</summary>
    Unknown = 2,

    /// <summary>A control symbol such as <c>&lt;s&gt;</c>; never produced from text by the merges.</summary>
    Control = 3,

    /// <summary>A symbol always kept whole. Not supported.</summary>
    UserDefined = 4,

    /// <summary>A piece left in the table but not used. Not supported.</summary>
    Unused = 5,

    /// <summary>One raw UTF-8 byte, written <c>&lt;0xHH&gt;</c>.</summary>
    Byte = 6,
}

/// <summary>The vocabulary of a <c>tokenizer.model</c> file: pieces, scores and types. Only the kind that LLaMA ships is
/// accepted (BPE with byte fallback, no Unicode normalisation, white space kept), because ids of another kind would be
/// silently wrong.</summary>
public sealed class SentencePieceModel
{
    private const int BpeModelType = 2;

    private static readonly UTF8Encoding StrictUtf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private readonly string[] _pieces;
    private readonly float[] _scores;
    private readonly PieceType[] _types;
    private readonly Dictionary<string, int> _ids;
    private readonly int[] _byteIds;

    private SentencePieceModel(RawModel raw, string name)
    {
        _pieces = [.. raw.Pieces];
        _scores = [.. raw.Scores];
        _types = [.. raw.Types];
        AddDummyPrefix = raw.AddDummyPrefix;
        UnkId = Array.IndexOf(_types, PieceType.Unknown);

        _ids = new Dictionary<string, int>(_pieces.Length, StringComparer.Ordinal);
        _byteIds = new int[256];
        Array.Fill(_byteIds, -1);
        for (int id = 0; id < _pieces.Length; id++)
        {
            string piece = _pieces[id];
            if (piece.Length == 0) throw Bad(name, $"piece {id} is empty");
            if (!_ids.TryAdd(piece, id)) throw Bad(name, $"piece {id} '{piece}' is there twice");
            if (!float.IsFinite(_scores[id])) throw Bad(name, $"the score of piece {id} is not a number");
            switch (_types[id])
            {
                case PieceType.Normal:
                    LongestPiece = Math.Max(LongestPiece, piece.Length);
                    break;
                case PieceType.Byte:
                    _byteIds[ByteValue(piece) ?? throw Bad(name, $"the byte piece {id} is called '{piece}' instead of <0x00> to <0xFF>")] = id;
                    break;
                case PieceType.Unknown or PieceType.Control:
                    break;
                default:
                    throw Bad(name, $"piece {id} '{piece}' is of type {_types[id]}, which is not supported");
            }
        }
        if (UnkId < 0 || Array.LastIndexOf(_types, PieceType.Unknown) != UnkId) throw Bad(name, "it must have exactly one unknown piece");
        int missing = Array.IndexOf(_byteIds, -1);
        if (missing >= 0) throw Bad(name, $"the byte piece <0x{missing:X2}> is missing, and only vocabularies with byte fallback are supported");
    }

    /// <summary>Number of pieces.</summary>
    public int Count => _pieces.Length;

    /// <summary>Whether SentencePiece itself would put a '▁' before each text (stock LLaMA: true).</summary>
    public bool AddDummyPrefix { get; }

    /// <summary>Id of the unknown piece.</summary>
    public int UnkId { get; }

    /// <summary>Length of the longest normal piece in UTF-16 units; no longer text can be one token.</summary>
    internal int LongestPiece { get; }

    /// <summary>Reads a model file.</summary>
    /// <param name="path">The file, usually <c>tokenizer.model</c>.</param>
    /// <exception cref="InvalidInputException">The file cannot be read, is not a SentencePiece model, or is of a kind that
    /// is not supported.</exception>
    public static SentencePieceModel Load(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        byte[] bytes;
        try
        {
            bytes = File.ReadAllBytes(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"The vocabulary {path} cannot be read: {error.Message}", error);
        }
        return Parse(bytes, path);
    }

    /// <summary>Reads a model from memory.</summary>
    /// <param name="bytes">The serialised <c>ModelProto</c>.</param>
    /// <param name="name">What to call it in errors.</param>
    /// <exception cref="InvalidInputException">As for <see cref="Load"/>.</exception>
    public static SentencePieceModel Parse(ReadOnlySpan<byte> bytes, string name)
    {
        RawModel raw = new();
        try
        {
            ReadModel(bytes, raw);
        }
        catch (Exception error) when (error is FormatException or DecoderFallbackException)
        {
            throw new InvalidInputException($"The vocabulary {name} is not a SentencePiece model or is damaged: {error.Message} was found.", error);
        }
        if (raw.Pieces.Count == 0) throw Bad(name, "it holds no pieces");
        if (raw.ModelType != BpeModelType) throw Bad(name, $"its model type is {ModelTypeName(raw.ModelType)}, and only BPE is supported");
        if (raw.HasCharsMap) throw Bad(name, "it has a Unicode normalisation table (precompiled_charsmap), and only vocabularies without one are supported");
        if (!raw.ByteFallback) throw Bad(name, "it was trained without byte fallback, which is not supported");
        if (raw.RemoveExtraWhitespaces) throw Bad(name, "it removes extra white space, which is not supported");
        if (!raw.EscapeWhitespaces) throw Bad(name, "it does not escape white space, which is not supported");
        if (raw.WhitespaceAsSuffix) throw Bad(name, "it treats white space as suffix, which is not supported");
        return new SentencePieceModel(raw, name);
    }

    /// <summary>Text of a piece as stored ('▁' for space, <c>&lt;0x0A&gt;</c> for bytes).</summary>
    /// <param name="id">Between 0 and <see cref="Count"/> - 1.</param>
    public string Piece(int id) => _pieces[id];

    /// <summary>Merge score of a piece; the highest merges first.</summary>
    /// <param name="id">Between 0 and <see cref="Count"/> - 1.</param>
    public float Score(int id) => _scores[id];

    /// <summary>Kind of a piece.</summary>
    /// <param name="id">Between 0 and <see cref="Count"/> - 1.</param>
    public PieceType TypeOf(int id) => _types[id];

    /// <summary>Id of a piece of any kind by its stored text.</summary>
    /// <param name="piece">The text of the piece.</param>
    /// <param name="id">Its id; 0 when there is none.</param>
    /// <returns>Whether the piece exists.</returns>
    public bool TryGetId(string piece, out int id) => _ids.TryGetValue(piece, out id);

    /// <summary>Id of the piece for one raw byte.</summary>
    /// <param name="value">The byte.</param>
    public int ByteId(byte value) => _byteIds[value];

    /// <summary>The byte a byte piece stands for, or null when <paramref name="piece"/> is not written like one.</summary>
    internal static byte? ByteValue(string piece)
    {
        if (piece.Length != 6 || !piece.StartsWith("<0x", StringComparison.Ordinal) || piece[5] != '>') return null;
        return byte.TryParse(piece.AsSpan(3, 2), System.Globalization.NumberStyles.AllowHexSpecifier, null, out byte value) ? value : null;
    }

    /// <summary>Look-up by characters, without making a string.</summary>
    internal Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> Lookup() => _ids.GetAlternateLookup<ReadOnlySpan<char>>();

    private static InvalidInputException Bad(string name, string what) => new($"The vocabulary {name} cannot be used: {what}.");

    private static string ModelTypeName(int type) => type switch
    {
        1 => "unigram",
        3 => "word",
        4 => "char",
        _ => type.ToString(System.Globalization.CultureInfo.InvariantCulture),
    };

    private static void ReadModel(ReadOnlySpan<byte> bytes, RawModel raw)
    {
        ProtobufReader model = new(bytes);
        while (model.Next())
        {
            switch (model.Field)
            {
                case 1:
                    ReadPiece(model.AsContent, raw);
                    break;
                case 2:
                    ReadTrainer(model.AsContent, raw);
                    break;
                case 3:
                    ReadNormalizer(model.AsContent, raw);
                    break;
                case 5:
                    ReadDenormalizer(model.AsContent, raw);
                    break;
            }
        }
    }

    private static void ReadPiece(ReadOnlySpan<byte> bytes, RawModel raw)
    {
        string text = "";
        float score = 0;
        PieceType type = PieceType.Normal;
        ProtobufReader piece = new(bytes);
        while (piece.Next())
        {
            switch (piece.Field)
            {
                case 1:
                    text = StrictUtf8.GetString(piece.AsContent);
                    break;
                case 2:
                    score = piece.AsSingle;
                    break;
                case 3:
                    type = (PieceType)piece.AsInt32;
                    break;
            }
        }
        raw.Pieces.Add(text);
        raw.Scores.Add(score);
        raw.Types.Add(type);
    }

    private static void ReadTrainer(ReadOnlySpan<byte> bytes, RawModel raw)
    {
        ProtobufReader trainer = new(bytes);
        while (trainer.Next())
        {
            switch (trainer.Field)
            {
                case 3:
                    raw.ModelType = trainer.AsInt32;
                    break;
                case 24:
                    raw.WhitespaceAsSuffix = trainer.AsBoolean;
                    break;
                case 35:
                    raw.ByteFallback = trainer.AsBoolean;
                    break;
            }
        }
    }

    private static void ReadNormalizer(ReadOnlySpan<byte> bytes, RawModel raw)
    {
        ProtobufReader normalizer = new(bytes);
        while (normalizer.Next())
        {
            switch (normalizer.Field)
            {
                case 2:
                    raw.HasCharsMap |= !normalizer.AsContent.IsEmpty;
                    break;
                case 3:
                    raw.AddDummyPrefix = normalizer.AsBoolean;
                    break;
                case 4:
                    raw.RemoveExtraWhitespaces = normalizer.AsBoolean;
                    break;
                case 5:
                    raw.EscapeWhitespaces = normalizer.AsBoolean;
                    break;
            }
        }
    }

    private static void ReadDenormalizer(ReadOnlySpan<byte> bytes, RawModel raw)
    {
        ProtobufReader denormalizer = new(bytes);
        while (denormalizer.Next())
        {
            if (denormalizer.Field == 2) raw.HasCharsMap |= !denormalizer.AsContent.IsEmpty;
        }
    }

    /// <summary>What the file says, before it is checked; the start values are the defaults of the proto file.</summary>
    private sealed class RawModel
    {
        public List<string> Pieces { get; } = [];
        public List<float> Scores { get; } = [];
        public List<PieceType> Types { get; } = [];
        public int ModelType { get; set; } = 1;
        public bool ByteFallback { get; set; }
        public bool WhitespaceAsSuffix { get; set; }
        public bool AddDummyPrefix { get; set; } = true;
        public bool RemoveExtraWhitespaces { get; set; } = true;
        public bool EscapeWhitespaces { get; set; } = true;
        public bool HasCharsMap { get; set; }
    }
}
