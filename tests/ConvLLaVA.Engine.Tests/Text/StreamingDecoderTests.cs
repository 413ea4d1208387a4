using System.Text;
using ConvLLaVA.Engine.Text;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Text;

public class StreamingDecoderTests
{
    private static readonly Gen<int[]> IdLists = Gen.OneOf(
            Gen.Choose(0, 2).Select(id => new[] { id }),
            Gen.Choose(3, 258).Select(id => new[] { id }),
            Gen.Choose(259, 619).Select(id => new[] { id }),
            Gen.Choose(0, 0x10FFFF).Where(Rune.IsValid).Select(BytesOf),
            Gen.Elements(0x2581, 0xE9, 0x1F600, 0xFFFD).Select(BytesOf),
            Gen.Choose(0, 0x10FFFF).Where(Rune.IsValid).Select(c => BytesOf(c)[..^1]))
        .ListOf().Select(lists => lists.SelectMany(list => list).ToArray());

    [Fact]
    public void The_parts_joined_are_the_text_and_no_part_is_half_a_character()
        => Prop.ForAll(IdLists.ToArbitrary(), ids =>
        {
            foreach (LlamaTokenizer tokenizer in new[] { Vocabularies.Small, Vocabularies.SmallLegacy })
            {
                foreach (bool skip in new[] { true, false })
                {
                    StreamingDecoder decoder = new(tokenizer, skip);
                    StringBuilder shown = new();
                    for (int i = 0; i < ids.Length; i++)
                    {
                        string part = decoder.Append(ids[i]);
                        AssertNoHalfCharacter(part);
                        shown.Append(part);

                        // Nothing is held back but the bytes of one unfinished character.
                        string soFar = tokenizer.Decode(ids.AsSpan(0, i + 1), skip);
                        Assert.StartsWith(shown.ToString(), soFar, StringComparison.Ordinal);
                        Assert.True(soFar.Length - shown.Length <= 3 && soFar.AsSpan(shown.Length).Trim('\uFFFD').IsEmpty);
                    }
                    shown.Append(decoder.Flush());
                    Assert.Equal(tokenizer.Decode(ids, skip), shown.ToString());
                    Assert.Equal("", decoder.Flush());
                }
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(300).WithQuietOnSuccess(true));

    [Fact]
    public void The_text_is_what_the_rules_say()
        => Prop.ForAll(IdLists.ToArbitrary(), ids => Assert.Equal(Rules(ids), Vocabularies.Small.Decode(ids))).Check(Config.QuickThrowOnFailure.WithMaxTest(300).WithQuietOnSuccess(true));

    [Fact]
    public void A_character_of_several_bytes_comes_whole()
    {
        StreamingDecoder decoder = new(Vocabularies.Small);
        Assert.Equal(["", "", "", "\U0001F600"], BytesOf(0x1F600).Select(decoder.Append));
        Assert.Equal(["", "\uFFFDA"], new[] { 3 + 0xE4, 3 + 'A' }.Select(decoder.Append));
        Assert.Equal(["", ""], new[] { 3 + 0xE4, 3 + 0xBD }.Select(decoder.Append));
        Assert.Equal("\uFFFD\uFFFD", decoder.Flush());
    }

    [Fact]
    public void A_refused_id_changes_nothing()
    {
        StreamingDecoder decoder = new(Vocabularies.Small);
        Assert.Equal("", decoder.Append(3 + 0xC3));
        Assert.Throws<InvalidInputException>(() => decoder.Append(-200));
        Assert.Equal("é", decoder.Append(3 + 0xA9));
    }

    [Fact]
    public void A_long_answer_takes_linear_time()
    {
        // With work per token that grows with the answer this would take minutes.
        int[] ids = [.. Enumerable.Range(0, 300_000).Select(i => 3 + (int)(i * 7919L % 617))];
        StreamingDecoder decoder = new(Vocabularies.Small);
        StringBuilder text = new();
        foreach (int id in ids) text.Append(decoder.Append(id));
        text.Append(decoder.Flush());
        Assert.Equal(Vocabularies.Small.Decode(ids), text.ToString());
    }

    private static int[] BytesOf(int character) => [.. Encoding.UTF8.GetBytes(new Rune(character).ToString()).Select(value => 3 + value)];

    private static void AssertNoHalfCharacter(string part)
    {
        for (int i = 0; i < part.Length; i++)
        {
            if (char.IsHighSurrogate(part[i])) Assert.True(++i < part.Length && char.IsLowSurrogate(part[i]));
            else Assert.False(char.IsLowSurrogate(part[i]));
        }
    }

    /// <summary>The decoding rules written down once more, without any streaming: drop special ids, drop one leading '▁',
    /// join pieces, and read runs of bytes as UTF-8 with U+FFFD for each byte that begins no character.</summary>
    private static string Rules(int[] ids)
    {
        StringBuilder text = new();
        List<byte> run = [];
        bool first = true;
        foreach (int id in ids.Where(id => id > 2))
        {
            string piece = Vocabularies.Small.PieceOf(id);
            if (id < 259)
            {
                run.Add(Convert.ToByte(piece[3..5], 16));
            }
            else
            {
                Characters();
                text.Append((first && piece[0] == '\u2581' ? piece[1..] : piece).Replace('\u2581', ' '));
            }
            first = false;
        }
        Characters();
        return text.ToString();

        void Characters()
        {
            UTF8Encoding strict = new(false, throwOnInvalidBytes: true);
            byte[] bytes = [.. run];
            run.Clear();
            for (int at = 0; at < bytes.Length;)
            {
                string? character = null;
                int length = 0;
                while (character is null && ++length <= 4 && at + length <= bytes.Length)
                {
                    try
                    {
                        character = strict.GetString(bytes, at, length);
                    }
                    catch (DecoderFallbackException)
                    {
                        // Not a character at this length; perhaps at the next.
                    }
                }
                text.Append(character ?? "\uFFFD");
                at += character is null ? 1 : length;
            }
        }
    }
}
