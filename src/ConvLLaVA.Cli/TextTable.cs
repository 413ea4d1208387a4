namespace ConvLLaVA.Cli;

/// <summary>Rows in aligned columns: the first is text and stands left, the others are numbers and stand right, the last is text again where the
/// head says so by a leading '&lt;'.</summary>
internal sealed class TextTable(params string[] heads)
{
    private readonly List<string[]> _rows = [];

    public void Add(params string[] cells) => _rows.Add(cells);

    public void WriteTo(TextWriter output)
    {
        string[] titles = [.. heads.Select(head => head.TrimStart('<'))];
        int[] widths = [.. titles.Select((title, i) => Math.Max(title.Length, _rows.Count == 0 ? 0 : _rows.Max(row => row[i].Length)))];
        foreach (string[] row in (IEnumerable<string[]>)[titles, .. _rows])
        {
            output.WriteLine(string.Join("  ", row.Select((cell, i) => i == 0 || heads[i].StartsWith('<') ? cell.PadRight(widths[i]) : cell.PadLeft(widths[i]))).TrimEnd());
        }
    }
}
