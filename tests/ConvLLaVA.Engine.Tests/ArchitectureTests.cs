using System.Text.RegularExpressions;
using Xunit;

namespace ConvLLaVA.Engine.Tests;

/// <summary>The folders of the engine know of each other what the table in <c>docs/architecture.md</c> says, and no more.</summary>
public sealed partial class ArchitectureTests
{
    private static readonly string Source = Path.Combine(Repository.Root, "src", "ConvLLaVA.Engine");

    [Fact]
    public void Folders_know_of_the_folders_that_the_table_names()
    {
        Dictionary<string, HashSet<string>> table = ReadTable();
        string[] folders = [.. Directory.GetDirectories(Source).Select(path => Path.GetFileName(path)).Where(name => name is not ("bin" or "obj" or "Properties")).Order(StringComparer.Ordinal)];
        Assert.Equal(folders, table.Keys.Order(StringComparer.Ordinal));
        Dictionary<string, string[]> texts = folders.ToDictionary(folder => folder, folder => (string[])[.. Directory.GetFiles(Path.Combine(Source, folder), "*.cs", SearchOption.AllDirectories).Select(File.ReadAllText)]);
        var seen = new HashSet<(string From, string To)>();
        foreach (string to in folders)
        {
            string types = string.Join('|', texts[to].SelectMany(text => Declared().Matches(text)).Select(match => match.Groups["name"].Value).Distinct());
            var refers = new Regex($@"\bConvLLaVA\.Engine\.{to}\b|\b{to}\.({types})\b"); // a using, or a qualified name
            foreach (string from in folders.Where(from => from != to && texts[from].Any(refers.IsMatch))) seen.Add((from, to));
        }
        foreach (string from in folders.Where(from => texts[from].Any(text => text.Contains("ConvLLaVA.Cuda", StringComparison.Ordinal)))) seen.Add((from, "Cuda"));
        Assert.Contains(("Quantization", "Tensors"), seen); // it looks where there is something to see
        Assert.Equal([], seen.Where(arrow => !table[arrow.From].Contains(arrow.To)).Select(arrow => $"{arrow.From} refers to {arrow.To}").Order(StringComparer.Ordinal));
    }

    /// <summary>What each folder may know of, by the table's last column.</summary>
    private static Dictionary<string, HashSet<string>> ReadTable()
    {
        var table = new Dictionary<string, HashSet<string>>();
        foreach (string line in File.ReadLines(Path.Combine(Repository.Root, "docs", "architecture.md")))
        {
            if (!line.StartsWith("| `", StringComparison.Ordinal) || line.Split('|') is not [_, var names, _, var known, _]) continue;
            HashSet<string> knows = [.. Word().Matches(known).Select(match => match.Value)];
            if (known.Contains("everything above", StringComparison.Ordinal)) knows.UnionWith([.. table.Keys, "Cuda"]);
            foreach (Match folder in Folder().Matches(names)) table.Add(folder.Groups["name"].Value, knows);
        }
        return table;
    }

    [GeneratedRegex(@"\b(?:class|struct|record|interface|enum) (?<name>[A-Z]\w*)")]
    private static partial Regex Declared();

    [GeneratedRegex(@"\w+")]
    private static partial Regex Word();

    [GeneratedRegex(@"`(?<name>\w+)/`")]
    private static partial Regex Folder();
}
