using ConvLLaVA.Engine.Generation;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Generation;

/// <summary>Stop strings, however the text is cut into pieces.</summary>
public sealed class StopDetectorTests
{
    [Fact]
    public void The_cut_does_not_depend_on_the_pieces()
    {
        // Two letters make overlaps, repeats and stop strings inside each other frequent.
        Gen<string> word = Gen.Elements('a', 'b').ArrayOf().Where(letters => letters.Length is >= 1 and <= 4).Select(letters => new string(letters));
        Gen<(string Text, string[] Stops, int[] Cuts)> example =
            from text in Gen.Elements('a', 'b', '\n', 'é').ArrayOf(24)
            from stops in word.ArrayOf(2)
            from cuts in Gen.Choose(0, 5).ArrayOf(30)
            select (new string(text), stops, cuts);
        Prop.ForAll(example.ToArbitrary(), e =>
        {
            (string expected, bool stops) = Whole(e.Text, e.Stops);
            var detector = new StopDetector(e.Stops);
            string shown = "";
            int at = 0;
            foreach (int cut in e.Cuts)
            {
                int end = Math.Min(e.Text.Length, at + cut);
                shown += detector.Append(e.Text[at..end]);
                Assert.StartsWith(shown, expected, StringComparison.Ordinal); // nothing is ever shown that must go
                at = end;
            }
            shown += detector.Append(e.Text[at..]);
            Assert.Equal(stops, detector.Stopped);
            if (!stops) shown += detector.Flush();
            Assert.Equal(expected, shown);
            Assert.Equal("", detector.Append(stops ? "more" : ""));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(3000));
    }

    [Theory]
    [InlineData("stop", "The st|op sign", "The ")]
    [InlineData("\n\n", "one\n|\ntwo", "one")]
    [InlineData("###", "a##|b###c", "a##b")]
    [InlineData("é!", "caf|é|!", "caf")]
    [InlineData("aab", "aa|aab", "aa")]
    public void Stop_strings_span_pieces(string stop, string pieces, string expected)
    {
        var detector = new StopDetector([stop]);
        Assert.Equal(expected, string.Concat(pieces.Split('|').Select(detector.Append)));
        Assert.True(detector.Stopped);
    }

    [Fact]
    public void Only_what_could_become_a_stop_string_is_held_back()
    {
        var detector = new StopDetector(["###"]);
        Assert.Equal("a", detector.Append("a##"));
        Assert.Equal("##b", detector.Append("b"));
        Assert.Equal("", detector.Append("#"));
        Assert.Equal("#", detector.Flush());
        Assert.Equal("at once", new StopDetector([]).Append("at once"));
    }

    /// <summary>The rule in its plainest form: letter by letter, the first position where a stop string ends cuts; the longest one of
    /// those that end there.</summary>
    private static (string Text, bool Stopped) Whole(string text, string[] stops)
    {
        for (int end = 1; end <= text.Length; end++)
        {
            string[] ending = [.. stops.Where(stop => text[..end].EndsWith(stop, StringComparison.Ordinal))];
            if (ending.Length > 0) return (text[..(end - ending.Max(stop => stop.Length))], true);
        }
        return (text, false);
    }
}
