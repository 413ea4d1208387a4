using ConvLLaVA.Engine.Text;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Text;

public class SentencePieceModelTests
{
    [Fact]
    public void Reads_pieces_scores_and_types()
    {
        SentencePieceModel model = SentencePieceModel.Parse(new ModelWriter().With(("ab", -0.5f), ("\u2581", -2)).Build(), "made");
        Assert.Equal(261, model.Count);
        Assert.Equal("ab", model.Piece(259));
        Assert.Equal(-0.5f, model.Score(259));
        Assert.Equal(PieceType.Normal, model.TypeOf(259));
        Assert.Equal(PieceType.Byte, model.TypeOf(3));
        Assert.Equal(PieceType.Control, model.TypeOf(1));
        Assert.Equal(0, model.UnkId);
        Assert.Equal(3 + 0x41, model.ByteId(0x41));
        Assert.True(model.AddDummyPrefix);
        Assert.True(model.TryGetId("\u2581", out int id));
        Assert.Equal(260, id);
    }

    [Fact]
    public void Reads_the_little_vocabulary()
    {
        SentencePieceModel model = SentencePieceModel.Load(Vocabularies.SmallModel);
        Assert.Equal(620, model.Count);
        Assert.Equal("\u2581a", model.Piece(259));
    }

    [Fact]
    public void Refuses_every_truncation()
    {
        byte[] whole = File.ReadAllBytes(Vocabularies.SmallModel);
        for (int length = 0; length < whole.Length; length += 7)
        {
            InvalidInputException error = Assert.Throws<InvalidInputException>(() => SentencePieceModel.Parse(whole.AsSpan(0, length), "cut.model"));
            Assert.Contains("cut.model", error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Garbage_gives_only_the_sentence()
    {
        Random random = new(1);
        byte[] whole = File.ReadAllBytes(Vocabularies.SmallModel);
        int refused = 0;
        for (int round = 0; round < 3000; round++)
        {
            byte[] bytes = round % 2 == 0 ? new byte[random.Next(1, 200)] : [.. whole];
            if (round % 2 == 0) random.NextBytes(bytes);
            else for (int i = 0; i < 5; i++) bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
            try
            {
                SentencePieceModel.Parse(bytes, "garbage");
            }
            catch (InvalidInputException)
            {
                refused++;
            }
        }
        Assert.InRange(refused, 1500, 3000);
    }

    public static TheoryData<string, string> Unsupported => new()
    {
        { "unigram", "unigram" },
        { "charsmap", "normalisation" },
        { "no byte fallback", "byte fallback" },
        { "extra white space", "extra white space" },
        { "no escape", "escape" },
        { "suffix", "suffix" },
        { "user piece", "UserDefined" },
        { "unused piece", "Unused" },
        { "twice", "twice" },
        { "empty piece", "empty" },
        { "no unknown", "unknown" },
        { "two unknown", "unknown" },
        { "byte missing", "<0x41>" },
        { "byte name", "<0xZZ>" },
        { "score", "score" },
    };

    [Theory]
    [MemberData(nameof(Unsupported))]
    public void Refuses_what_it_cannot_encode(string what, string word)
    {
        ModelWriter writer = new();
        switch (what)
        {
            case "unigram":
                writer.ModelType = 1;
                break;
            case "charsmap":
                writer.CharsMap = "x";
                break;
            case "no byte fallback":
                writer.ByteFallback = false;
                break;
            case "extra white space":
                writer.RemoveExtraWhitespaces = true;
                break;
            case "no escape":
                writer.EscapeWhitespaces = false;
                break;
            case "suffix":
                writer.WhitespaceAsSuffix = true;
                break;
            case "user piece":
                writer.Pieces.Add(("x", 0, 4));
                break;
            case "unused piece":
                writer.Pieces.Add(("x", 0, 5));
                break;
            case "twice":
                writer.With(("x", 0), ("x", -1));
                break;
            case "empty piece":
                writer.With(("", 0));
                break;
            case "no unknown":
                writer.Pieces.RemoveAt(0);
                break;
            case "two unknown":
                writer.Pieces.Add(("x", 0, 2));
                break;
            case "byte missing":
                writer.Pieces.RemoveAt(3 + 0x41);
                break;
            case "byte name":
                writer.Pieces.Add(("<0xZZ>", 0, 6));
                break;
            default:
                writer.With(("x", float.NaN));
                break;
        }
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => SentencePieceModel.Parse(writer.Build(), "made.model"));
        Assert.Contains(word, error.Message, StringComparison.Ordinal);
        Assert.Contains("made.model", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Merges_the_best_pair_first_and_the_leftmost_of_equals()
    {
        // "bc" scores best, so "abc" becomes a|bc although "ab" is a piece; "aa" in "aaa" merges on the left.
        Assert.Equal([265, 264], Bpe([("ab", -2), ("x", -9), ("aa", -1), ("cd", -2), ("y", -9), ("bc", -1), ("a", -5), ("b", -5), ("c", -5)], "abc"));
        Assert.Equal([259, 260], Bpe([("aa", -1), ("a", -2)], "aaa"));
    }

    [Fact]
    public void Equal_scores_are_equal_also_as_minus_zero()
        => Assert.Equal([259, 262], Bpe([("ab", -0f), ("bc", 0f), ("a", -1), ("c", -1), ("b", -1)], "abc"));

    [Fact]
    public void Byte_and_control_pieces_are_never_made_from_text()
    {
        ModelWriter writer = new ModelWriter().With(("<s", -1), ("<0x41", -1));
        SentencePieceModel model = SentencePieceModel.Parse(writer.Build(), "made");
        List<int> ids = [];
        new SentencePieceBpe(model).Encode("<s>", prefix: false, ids);
        Assert.Equal([259, 3 + '>'], ids.Select(id => id == 259 ? 259 : id));
        Assert.DoesNotContain(1, ids);
    }

    private static List<int> Bpe((string, float)[] pieces, string text)
    {
        SentencePieceModel model = SentencePieceModel.Parse(new ModelWriter().With(pieces).Build(), "made");
        List<int> ids = [];
        new SentencePieceBpe(model).Encode(text, prefix: false, ids);
        return ids;
    }
}
