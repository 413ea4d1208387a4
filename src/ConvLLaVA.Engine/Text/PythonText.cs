namespace ConvLLaVA.Engine.Text;

/// <summary>String operations with the exact meaning they have in Python, which the original relies on.</summary>
public static class PythonText
{
    /// <summary><c>str.strip()</c>: removes Unicode white space at both ends, which in Python includes the separators
    /// U+001C to U+001F that .NET does not count as white space.</summary>
    /// <param name="text">Any text.</param>
    public static string Strip(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return RightStrip(LeftStrip(text)).ToString();
    }

    /// <summary><c>str.lstrip()</c>.</summary>
    internal static ReadOnlySpan<char> LeftStrip(ReadOnlySpan<char> text)
    {
        int start = 0;
        while (start < text.Length && IsSpace(text[start])) start++;
        return text[start..];
    }

    /// <summary><c>str.rstrip()</c>.</summary>
    internal static ReadOnlySpan<char> RightStrip(ReadOnlySpan<char> text)
    {
        int end = text.Length;
        while (end > 0 && IsSpace(text[end - 1])) end--;
        return text[..end];
    }

    /// <summary><c>str.isspace()</c> of one character.</summary>
    internal static bool IsSpace(char c) => char.IsWhiteSpace(c) || c is >= '\u001c' and <= '\u001f';
}
