namespace ConvLLaVA.Engine.Generation;

/// <summary>Cuts a stream of text exactly before the stop string that is complete first (of two that end together, the longer one),
/// so that the answer does not depend on how the text was cut into tokens. What could still become one is held back.</summary>
internal sealed class StopDetector(IReadOnlyList<string> stops)
{
    private string _held = "";

    /// <summary>True once a stop string came up.</summary>
    public bool Stopped { get; private set; }

    /// <summary>Takes new text and gives what can be shown.</summary>
    public string Append(string text)
    {
        if (Stopped) return "";
        if (stops.Count == 0) return text;
        string all = _held + text;
        int cut = -1, firstEnd = int.MaxValue;
        foreach (string stop in stops)
        {
            int at = all.IndexOf(stop, StringComparison.Ordinal);
            if (at < 0 || (at + stop.Length, at).CompareTo((firstEnd, cut)) >= 0) continue;
            (firstEnd, cut) = (at + stop.Length, at);
        }
        if (cut >= 0)
        {
            Stopped = true;
            _held = "";
            return all[..cut];
        }
        int hold = LongestBeginning(all);
        _held = all[^hold..];
        return all[..^hold];
    }

    /// <summary>Gives what was held back: the text is over and no stop string came.</summary>
    public string Flush()
    {
        string held = _held;
        _held = "";
        return held;
    }

    /// <summary>Length of the longest end of <paramref name="text"/> that a stop string begins with.</summary>
    private int LongestBeginning(string text)
    {
        int longest = 0;
        foreach (string stop in stops)
        {
            for (int length = Math.Min(stop.Length - 1, text.Length); length > longest; length--)
            {
                if (text.AsSpan(text.Length - length).SequenceEqual(stop.AsSpan(0, length))) longest = length;
            }
        }
        return longest;
    }
}
