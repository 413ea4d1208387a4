using System.Text;
using System.Text.Json;

namespace ConvLLaVA.Nvrtc.Tests;

/// <summary>The committed table of what each kernel takes: <c>resources.json</c>, one line a kernel with registers and static shared bytes for
/// each architecture. Stack and spills are not in it: there are none.</summary>
internal sealed class ResourceTable
{
    /// <summary>Set to 1: the table is rewritten from what was compiled instead of compared with it.</summary>
    public const string WriteVariable = "CONVLLAVA_WRITE_RESOURCES";

    private static readonly string Path = System.IO.Path.Combine(Repository.Root, "tests", "ConvLLaVA.Nvrtc.Tests", "resources.json");
    private static readonly Lock Gate = new();

    private readonly SortedDictionary<string, SortedDictionary<string, SortedDictionary<string, int[]>>> _versions;

    private ResourceTable(SortedDictionary<string, SortedDictionary<string, SortedDictionary<string, int[]>>> versions) => _versions = versions;

    /// <summary>True when the table is to be rewritten.</summary>
    public static bool Rewrites => Environment.GetEnvironmentVariable(WriteVariable) == "1";

    /// <summary>Compares <paramref name="compiled"/> with the table, or writes it down.</summary>
    /// <param name="version">Version of NVRTC; a table of another version says nothing.</param>
    /// <param name="compiled">Specialisations of one architecture.</param>
    /// <returns>Every difference, in words; null when the table has nothing of that version.</returns>
    public static IReadOnlyList<string>? Differences(Version version, IReadOnlyList<CompiledSpec> compiled)
    {
        lock (Gate)
        {
            ResourceTable table = Read();
            if (!Rewrites) return table.Compare(version.ToString(), compiled);
            table.Put(version.ToString(), compiled);
            table.Write();
            return [];
        }
    }

    private static string Row(CompiledSpec spec, string kernel) => $"{kernel} {spec.Spec.Constants}".TrimEnd();

    private static ResourceTable Read() => new(File.Exists(Path)
        ? JsonSerializer.Deserialize<SortedDictionary<string, SortedDictionary<string, SortedDictionary<string, int[]>>>>(File.ReadAllText(Path))!
        : []);

    private List<string>? Compare(string version, IReadOnlyList<CompiledSpec> compiled)
    {
        if (!_versions.TryGetValue(version, out var rows)) return null;
        var differences = new List<string>();
        foreach (CompiledSpec spec in compiled)
        {
            foreach ((string kernel, KernelResources now) in spec.Kernels)
            {
                string what = $"{Row(spec, kernel)} for {spec.Architecture}";
                if (!rows.TryGetValue(Row(spec, kernel), out var columns) || !columns.TryGetValue(spec.Architecture, out int[]? was))
                {
                    differences.Add($"{what} is not in the table: {now.Registers} registers, {now.SharedBytes} bytes of shared memory");
                }
                else if (now.Registers != was[0] || now.SharedBytes != was[1])
                {
                    string verdict = now.Registers > was[0] || now.SharedBytes > was[1] ? "worse" : "better, write it down";
                    differences.Add($"{what} takes {now.Registers} registers and {now.SharedBytes} bytes of shared memory, the table says {was[0]} and {was[1]} ({verdict})");
                }
            }
        }
        return differences;
    }

    private void Put(string version, IReadOnlyList<CompiledSpec> compiled)
    {
        if (!_versions.TryGetValue(version, out var rows)) _versions.Add(version, rows = new(StringComparer.Ordinal));
        string architecture = compiled[0].Architecture;
        foreach (var columns in rows.Values) columns.Remove(architecture);
        foreach (CompiledSpec spec in compiled)
        {
            foreach ((string kernel, KernelResources now) in spec.Kernels)
            {
                if (!rows.TryGetValue(Row(spec, kernel), out var columns)) rows.Add(Row(spec, kernel), columns = new(StringComparer.Ordinal));
                columns[architecture] = [now.Registers, now.SharedBytes];
            }
        }
        foreach (string empty in rows.Where(row => row.Value.Count == 0).Select(row => row.Key).ToArray()) rows.Remove(empty);
    }

    private void Write()
    {
        var text = new StringBuilder("{\n");
        foreach ((string version, var rows) in _versions)
        {
            text.Append($"  \"{version}\": {{\n");
            foreach ((string row, var columns) in rows)
            {
                text.Append($"    \"{row}\": {{ ").AppendJoin(", ", columns.Select(column => $"\"{column.Key}\": [{column.Value[0]}, {column.Value[1]}]"))
                    .Append(row == rows.Keys.Last() ? " }\n" : " },\n");
            }
            text.Append(version == _versions.Keys.Last() ? "  }\n" : "  },\n");
        }
        File.WriteAllText(Path, text.Append("}\n").ToString());
    }
}
