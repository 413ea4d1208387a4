using System.Buffers;

namespace ConvLLaVA.Engine.Text;

/// <summary>Cuts a text at its added tokens: the leftmost match first, of several at one place the longest, as the trie
/// of transformers' Python tokenizers does.</summary>
internal sealed class AddedTokenSplitter
{
    private readonly SearchValues<char> _starts;
    private readonly (AddedToken Token, int Id)[] _longestFirst;

    public AddedTokenSplitter(IEnumerable<(AddedToken Token, int Id)> tokens)
    {
        _longestFirst = [.. tokens.OrderByDescending(entry => entry.Token.Content.Length)];
        _starts = SearchValues.Create([.. _longestFirst.Select(entry => entry.Token.Content[0]).Distinct()]);
    }

    /// <summary>Splits a text into stretches and added tokens, in order. Empty stretches are left out.</summary>
    public List<Part> Split(string text)
    {
        List<Part> parts = [];
        int done = 0;
        AddedToken? before = null;
        for (int at = 0; at < text.Length; at++)
        {
            int skip = text.AsSpan(at).IndexOfAny(_starts);
            if (skip < 0) break;
            at += skip;
            if (Match(text.AsSpan(at)) is not var (token, id)) continue;
            AddText(parts, text, done, at, before, token);
            parts.Add(new Part(at, token.Content.Length, id));
            done = at + token.Content.Length;
            at = done - 1;
            before = token;
        }
        AddText(parts, text, done, text.Length, before, null);
        return parts;
    }

    private (AddedToken, int)? Match(ReadOnlySpan<char> text)
    {
        foreach ((AddedToken token, int id) in _longestFirst)
        {
            if (text.StartsWith(token.Content, StringComparison.Ordinal)) return (token, id);
        }
        return null;
    }

    private static void AddText(List<Part> parts, string text, int start, int end, AddedToken? before, AddedToken? after)
    {
        ReadOnlySpan<char> stretch = text.AsSpan(start, end - start);
        if (before is { RightStrip: true })
        {
            start = end - PythonText.LeftStrip(stretch).Length;
            stretch = text.AsSpan(start, end - start);
        }
        if (after is { LeftStrip: true }) end = start + PythonText.RightStrip(stretch).Length;
        if (end > start) parts.Add(new Part(start, end - start, null));
    }

    /// <summary>A stretch of the text.</summary>
    /// <param name="Start">First UTF-16 unit.</param>
    /// <param name="Length">Number of UTF-16 units.</param>
    /// <param name="Id">Id of the added token it is, or null for ordinary text.</param>
    public readonly record struct Part(int Start, int Length, int? Id);
}
