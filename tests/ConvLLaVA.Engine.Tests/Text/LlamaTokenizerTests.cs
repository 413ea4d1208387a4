using System.Text;
using System.Text.Json;
using ConvLLaVA.Engine.Text;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Text;

public class LlamaTokenizerTests
{
    /// <summary>All UTF-16, lone surrogates too, with much white space, special tokens and bytes of tokens.</summary>
    internal static Gen<string> AnyText { get; } = Gen.OneOf(
            Gen.Elements("<s>", "</s>", "<unk>", "<image>", " ", "   ", "\n", "\u2581", "<", "s>", "<0x0A>", "e\u0301", "\U0001F600", "the", " picture"),
            Gen.Choose(0, 0xFFFF).Select(c => ((char)c).ToString()),
            Gen.Choose(0xD800, 0xDFFF).Select(c => ((char)c).ToString()),
            Gen.Choose(0x20, 0x7E).Select(c => ((char)c).ToString()))
        .ListOf().Select(string.Concat);

    private static readonly Gen<string> PlainText = AnyText.Select(text =>
    {
        foreach (string special in new[] { "<unk>", "<s>", "</s>" }) text = text.Replace(special, "");
        byte[] valid = Encoding.UTF8.GetBytes(text.Replace('\u2581', '_').Replace("<", ""));
        return Encoding.UTF8.GetString(valid);
    });

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Ids_are_those_of_sentencepiece(bool legacy)
    {
        LlamaTokenizer tokenizer = legacy ? Vocabularies.SmallLegacy : Vocabularies.Small;
        using JsonDocument cases = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Repository.Fixtures, "text", "small.json")));
        int count = 0;
        foreach (JsonElement entry in cases.RootElement.GetProperty("encode").EnumerateArray())
        {
            string text = entry[0].GetString()!;
            Assert.True(Ids(entry[legacy ? entry.GetArrayLength() - 1 : 1]).SequenceEqual(tokenizer.Encode(text)), $"{JsonSerializer.Serialize(text)} became {string.Join(' ', tokenizer.Encode(text))}");
            count++;
        }
        Assert.Equal(300, count);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Texts_are_those_of_sentencepiece(bool legacy)
    {
        LlamaTokenizer tokenizer = legacy ? Vocabularies.SmallLegacy : Vocabularies.Small;
        using JsonDocument cases = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Repository.Fixtures, "text", "small.json")));
        int count = 0;
        foreach (JsonElement entry in cases.RootElement.GetProperty("decode").EnumerateArray())
        {
            Assert.Equal(entry[legacy ? entry.GetArrayLength() - 1 : 1].GetString(), tokenizer.Decode(Ids(entry[0])));
            count++;
        }
        Assert.Equal(150, count);
    }

    [Fact]
    public void Encoding_never_fails()
        => Prop.ForAll(AnyText.ToArbitrary(), text =>
        {
            foreach (LlamaTokenizer tokenizer in new[] { Vocabularies.Small, Vocabularies.SmallLegacy })
            {
                int[] ids = tokenizer.EncodeWithImages(text);
                Assert.Equal(tokenizer.BosId, ids[0]);
                Assert.Equal(ImagePrompt.Count(text), ids.Count(id => id == LlamaTokenizer.ImageTokenIndex));
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(300).WithQuietOnSuccess(true));

    [Fact]
    public void Plain_text_survives()
        => Prop.ForAll(PlainText.ToArbitrary(), text =>
        {
            Assert.Equal(text, Vocabularies.Small.Decode(Vocabularies.Small.Encode(text)));

            // With legacy=true SentencePiece takes one more leading space away.
            string start = text.StartsWith(' ') ? "x" : "";
            Assert.Equal(start + text, Vocabularies.SmallLegacy.Decode(Vocabularies.SmallLegacy.Encode(start + text)));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(300).WithQuietOnSuccess(true));

    [Fact]
    public void Lone_surrogates_count_as_replacement_characters()
    {
        Assert.Equal(Vocabularies.Small.Encode("a\uFFFDb\uFFFD"), Vocabularies.Small.Encode("a\uD83Db\uDE00"));
        Assert.Equal("a\uFFFDb\uFFFD", Vocabularies.Small.Decode(Vocabularies.Small.Encode("a\uD83Db\uDE00")));
    }

    [Fact]
    public void A_megabyte_is_fine()
    {
        StringBuilder text = new();
        Random random = new(3);
        string[] words = ["the", " picture", "  ", "answers", "\n", "12", "\u4F60", "xxxxxxxx"];
        while (text.Length < 1_000_000) text.Append(words[random.Next(words.Length)]);
        foreach (string whole in new[] { text.ToString(), new string(' ', 1_000_000) })
        {
            Assert.Equal(whole, Vocabularies.Small.Decode(Vocabularies.Small.Encode(whole)));
        }
    }

    [Fact]
    public void Images_split_the_prompt()
    {
        int[] ids = Vocabularies.Small.EncodeWithImages("a <image>\n<image>b");
        int[] expected = [.. Vocabularies.Small.Encode("a "), -200, .. Vocabularies.Small.Encode("\n")[1..], -200, .. Vocabularies.Small.Encode("b")[1..]];
        Assert.Equal(expected, ids);
        Assert.Equal([1, -200], Vocabularies.Small.EncodeWithImages("<image>"));
        Assert.Equal([1], Vocabularies.Small.EncodeWithImages(""));
        Assert.Equal([1, -200, -200, 2], Vocabularies.Small.EncodeWithImages("<image><image></s>"));
    }

    [Fact]
    public void Image_tokens_get_the_next_ids()
    {
        LlamaTokenizer tokenizer = Vocabularies.LoadSmall(new() { Legacy = false, AddImPatchToken = true, AddImStartEnd = true });
        Assert.Equal(623, tokenizer.VocabularySize);
        Assert.Equal(["<im_patch>", "<im_start>", "<im_end>"], new[] { 620, 621, 622 }.Select(tokenizer.PieceOf));
        Assert.Equal([1, 620], tokenizer.Encode("<im_patch>"));
        Assert.Equal([1, 621, -200, 622, .. tokenizer.Encode("\nx")[2..]], tokenizer.EncodeWithImages("<im_start><image><im_end>\nx"));
        Assert.Equal("x", tokenizer.Decode([621, .. tokenizer.Encode("x"), 622]));
        Assert.Equal("<im_start>x<im_end>", tokenizer.Decode([621, .. tokenizer.Encode("x")[2..], .. tokenizer.Encode("<im_end>")[1..]], skipSpecial: false).Replace("\u2581x", "x"));
        Assert.True(tokenizer.IsSpecial(622));
        Assert.Equal(621, Vocabularies.LoadSmall(new() { AddImPatchToken = true }).VocabularySize);
        Assert.Equal(620, Vocabularies.Small.VocabularySize);
    }

    [Fact]
    public void Special_tokens_are_written_only_when_asked_for()
    {
        int[] ids = [1, .. Vocabularies.Small.Encode("the picture")[1..], 2];
        Assert.Equal("the picture", Vocabularies.Small.Decode(ids));
        Assert.Equal("<s> the picture</s>", Vocabularies.Small.Decode(ids, skipSpecial: false));
        Assert.Equal("", Vocabularies.Small.Decode([]));
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(-200)]
    [InlineData(620)]
    [InlineData(int.MaxValue)]
    public void Unknown_ids_are_refused(int id)
    {
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => Vocabularies.Small.Decode([5, id]));
        Assert.Equal($"The token id {id} is not in the vocabulary of 620 tokens.", error.Message);
        Assert.Equal(error.Message, Assert.Throws<InvalidInputException>(() => Vocabularies.Small.PieceOf(id)).Message);
    }

    private static int[] Ids(JsonElement list) => [.. list.EnumerateArray().Select(id => id.GetInt32())];
}
