using System.Text;

namespace ConvLLaVA.Engine.Text;

/// <summary>LLaMA's tokenizer: the ids that transformers' Python <c>LlamaTokenizer</c> gives, for both values of
/// <c>legacy</c>, and LLaVA's split at <c>&lt;image&gt;</c>. Immutable; safe to use from several threads.</summary>
/// <remarks>Special tokens count wherever they stand in the text, also when a user typed them, as in the original.</remarks>
public sealed class LlamaTokenizer
{
    /// <summary>Stands in the ids for the image of <see cref="ImagePlaceholder"/>; not an id of the vocabulary.</summary>
    public const int ImageTokenIndex = -200;

    /// <summary>The text that stands for an image in a prompt.</summary>
    public const string ImagePlaceholder = "<image>";

    private readonly SentencePieceModel _model;
    private readonly SentencePieceBpe _bpe;
    private readonly AddedTokenSplitter _splitter;
    private readonly Dictionary<string, int> _addedIds = new(StringComparer.Ordinal);
    private readonly Dictionary<int, AddedToken> _added = [];
    private readonly (TokenKind Kind, string Text)[] _decoded;
    private readonly bool _addBos;
    private readonly bool _addEos;
    private readonly int _lonePrefix;

    private LlamaTokenizer(SentencePieceModel model, TokenizerFiles files, TokenizerOptions options)
    {
        _model = model;
        _bpe = new SentencePieceBpe(model);
        Legacy = options.Legacy ?? files.Legacy;
        _addBos = files.AddBos;
        _addEos = files.AddEos;
        _lonePrefix = model.TryGetId("\u2581", out int prefix) ? prefix : -1;

        VocabularySize = model.Count;
        foreach ((int id, AddedToken token) in files.Numbered) Add(token, id);
        BosId = Add(files.Bos);
        EosId = Add(files.Eos);
        UnkId = Add(files.Unk);
        PadId = files.Pad is null ? UnkId : Add(files.Pad);
        foreach (AddedToken token in files.Additional) Add(token);
        if (options.AddImPatchToken) Add(new AddedToken("<im_patch>", Special: true));
        if (options.AddImStartEnd)
        {
            Add(new AddedToken("<im_start>", Special: true));
            Add(new AddedToken("<im_end>", Special: true));
        }
        _splitter = new AddedTokenSplitter(_added.Select(entry => (entry.Value, entry.Key)));
        _decoded = DecodeAll();
    }

    /// <summary>Whether each stretch between special tokens gets its own leading space (<c>legacy=true</c>) or only the
    /// start of the text (<c>legacy=false</c>, as the published checkpoints have it).</summary>
    public bool Legacy { get; }

    /// <summary>Id of the token that starts every sequence.</summary>
    public int BosId { get; }

    /// <summary>Id of the token that ends an answer.</summary>
    public int EosId { get; }

    /// <summary>Id that pads batches; the unknown token where the files name none.</summary>
    public int PadId { get; }

    /// <summary>Id of the unknown token.</summary>
    public int UnkId { get; }

    /// <summary>One more than the highest id, added tokens included.</summary>
    public int VocabularySize { get; private set; }

    /// <summary>Reads a tokenizer from a checkpoint folder: <c>tokenizer.model</c>, and where present
    /// <c>tokenizer_config.json</c>, <c>special_tokens_map.json</c> and <c>added_tokens.json</c>.</summary>
    /// <param name="directory">The folder.</param>
    /// <param name="options">What <c>config.json</c> or the caller decides; null for nothing.</param>
    /// <exception cref="InvalidInputException">There is no <c>tokenizer.model</c>, or a file is damaged or of a kind
    /// that is not supported.</exception>
    public static LlamaTokenizer Load(string directory, TokenizerOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(directory);
        string path = Path.Combine(directory, "tokenizer.model");
        if (!File.Exists(path)) throw new InvalidInputException($"There is no tokenizer.model in {directory}.");
        return new LlamaTokenizer(SentencePieceModel.Load(path), TokenizerFiles.Read(directory), options ?? new TokenizerOptions());
    }

    /// <summary>Encodes a text, with the start token in front (and the end token behind where the files ask for it).</summary>
    /// <param name="text">Any text; a lone surrogate counts as U+FFFD.</param>
    public int[] Encode(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        List<int> ids = new((text.Length / 3) + 4);
        if (_addBos) ids.Add(BosId);
        if (Legacy) EncodeLegacy(text, ids);
        else EncodeParts(text, ids);
        if (_addEos) ids.Add(EosId);
        return [.. ids];
    }

    /// <summary>Encodes a prompt with images: the text is cut at each <see cref="ImagePlaceholder"/>, every part encoded
    /// on its own (with its own leading space), and <see cref="ImageTokenIndex"/> put between the parts.</summary>
    /// <param name="prompt">The rendered prompt.</param>
    public int[] EncodeWithImages(string prompt)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        List<int> ids = [];
        string[] parts = prompt.Split(ImagePlaceholder);
        int drop = 0;
        for (int i = 0; i < parts.Length; i++)
        {
            int[] part = Encode(parts[i]);
            if (i == 0 && part.Length > 0 && part[0] == BosId)
            {
                drop = 1;
                ids.Add(BosId);
            }
            if (i > 0) ids.Add(ImageTokenIndex);
            ids.AddRange(part.AsSpan(Math.Min(drop, part.Length)));
        }
        return [.. ids];
    }

    /// <summary>Turns ids back into text. Leading and trailing space stays (see <see cref="PythonText.Strip"/>), except the
    /// one space that encoding puts in front.</summary>
    /// <param name="ids">Ids below <see cref="VocabularySize"/>.</param>
    /// <param name="skipSpecial">Whether special tokens are left out instead of written literally.</param>
    /// <exception cref="InvalidInputException">An id is not in the vocabulary.</exception>
    public string Decode(ReadOnlySpan<int> ids, bool skipSpecial = true)
    {
        StringBuilder text = new();
        PieceDecoder decoder = new(this, skipSpecial);
        foreach (int id in ids) decoder.Append(id, text);
        decoder.Finish(text);
        return text.ToString();
    }

    /// <summary>The stored text of an id: a piece with '▁' for space, <c>&lt;0xHH&gt;</c> for a byte, or an added token.</summary>
    /// <param name="id">An id below <see cref="VocabularySize"/>.</param>
    /// <exception cref="InvalidInputException">The id is not in the vocabulary.</exception>
    public string PieceOf(int id)
    {
        if (_added.TryGetValue(id, out AddedToken? token)) return token.Content;
        return id >= 0 && id < _model.Count ? _model.Piece(id) : throw Unknown(id);
    }

    /// <summary>Id of a piece or added token by its stored text (see <see cref="PieceOf"/>).</summary>
    /// <param name="piece">The stored text.</param>
    /// <param name="id">Its id; 0 when there is none.</param>
    /// <returns>Whether there is such a piece.</returns>
    public bool TryGetId(string piece, out int id)
    {
        ArgumentNullException.ThrowIfNull(piece);
        return _addedIds.TryGetValue(piece, out id) || _model.TryGetId(piece, out id);
    }

    /// <summary>Whether an id is a special token, which decoding can leave out.</summary>
    /// <param name="id">Any number.</param>
    public bool IsSpecial(int id) => _added.TryGetValue(id, out AddedToken? token) && token.Special;

    /// <summary>Whether SentencePiece itself adds, and on decoding removes, a leading space.</summary>
    internal bool DummyPrefix => Legacy && _model.AddDummyPrefix;

    /// <summary>What the decoder does with an id, and the text it writes ('▁' already a space).</summary>
    /// <exception cref="InvalidInputException">The id is not in the vocabulary.</exception>
    internal (TokenKind Kind, string Text) Decoded(int id)
        => (uint)id < (uint)_decoded.Length ? _decoded[id] : throw Unknown(id);

    private InvalidInputException Unknown(int id) => new($"The token id {id} is not in the vocabulary of {VocabularySize} tokens.");

    private void EncodeLegacy(string text, List<int> ids)
    {
        foreach (AddedTokenSplitter.Part part in _splitter.Split(text))
        {
            if (part.Id is { } id) ids.Add(id);
            else _bpe.Encode(text.AsSpan(part.Start, part.Length), DummyPrefix, ids);
        }
    }

    private void EncodeParts(string text, List<int> ids)
    {
        if (text.Length == 0) return;
        int first = ids.Count;
        string prefixed = SentencePieceBpe.Space + text.Replace(SentencePieceBpe.Space, ' ');
        foreach (AddedTokenSplitter.Part part in _splitter.Split(prefixed))
        {
            if (part.Id is { } id) ids.Add(id);
            else _bpe.Encode(prefixed.AsSpan(part.Start, part.Length), prefix: false, ids);
        }

        // The prefix is meant for text: before a special token it goes away again.
        if (ids.Count - first > 1 && ids[first] == _lonePrefix && IsSpecial(ids[first + 1])) ids.RemoveAt(first);
    }

    private int Add(AddedToken token, int? fixedId = null)
    {
        if (_addedIds.TryGetValue(token.Content, out int known))
        {
            if (fixedId is { } other && other != known) throw new InvalidInputException($"The added token '{token.Content}' has two ids, {known} and {other}.");
            if (token.Special) _added[known] = _added[known] with { Special = true };
            return known;
        }
        int id = fixedId ?? (_model.TryGetId(token.Content, out int piece) ? piece : VocabularySize);
        if (id > VocabularySize) throw new InvalidInputException($"The added token '{token.Content}' has id {id}, which leaves a gap after the {VocabularySize} tokens before it.");
        if (_added.TryGetValue(id, out AddedToken? taken)) throw new InvalidInputException($"The added tokens '{taken.Content}' and '{token.Content}' have the same id {id}.");
        if (id == VocabularySize) VocabularySize++;
        _added[id] = token;
        _addedIds[token.Content] = id;
        return id;
    }

    private (TokenKind, string)[] DecodeAll()
    {
        (TokenKind, string)[] all = new (TokenKind, string)[VocabularySize];
        for (int id = 0; id < _model.Count; id++)
        {
            all[id] = _model.TypeOf(id) switch
            {
                PieceType.Normal => (TokenKind.Text, _model.Piece(id).Replace(SentencePieceBpe.Space, ' ')),
                PieceType.Byte => (TokenKind.Byte, ((char)SentencePieceModel.ByteValue(_model.Piece(id))!.Value).ToString()),
                _ => (TokenKind.Silent, ""),
            };
        }
        foreach ((int id, AddedToken token) in _added) all[id] = (token.Special ? TokenKind.Special : TokenKind.Literal, token.Content);
        return all;
    }
}
