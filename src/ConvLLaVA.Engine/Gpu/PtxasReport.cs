using System.Globalization;
using System.Text.RegularExpressions;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>What ptxas says that a kernel takes.</summary>
/// <param name="Entry">Name of the entry point.</param>
/// <param name="Registers">Registers of a thread.</param>
/// <param name="StaticSharedBytes">Shared memory that the kernel declares.</param>
/// <param name="StackBytes">Local memory of a thread.</param>
/// <param name="SpillStoreBytes">Bytes of registers written out for lack of them.</param>
/// <param name="SpillLoadBytes">Bytes read back.</param>
internal sealed partial record PtxasReport(string Entry, int Registers, int StaticSharedBytes, int StackBytes, int SpillStoreBytes, int SpillLoadBytes)
{
    /// <summary>Reads the log that <c>--ptxas-options=-v</c> leaves: three lines an entry point.</summary>
    public static IReadOnlyList<PtxasReport> Parse(string log)
    {
        List<PtxasReport> found = [];
        string? entry = null;
        int stack = 0, stores = 0, loads = 0;
        foreach (string line in log.Split('\n'))
        {
            if (EntryLine().Match(line) is { Success: true } begin)
            {
                entry = begin.Groups[1].Value;
                stack = stores = loads = 0;
            }
            else if (StackLine().Match(line) is { Success: true } frame)
            {
                (stack, stores, loads) = (Number(frame.Groups[1]), Number(frame.Groups[2]), Number(frame.Groups[3]));
            }
            else if (entry is not null && RegisterLine().Match(line) is { Success: true } used)
            {
                Match shared = SharedPart().Match(line);
                found.Add(new PtxasReport(entry, Number(used.Groups[1]), shared.Success ? Number(shared.Groups[1]) : 0, stack, stores, loads));
                entry = null;
            }
        }
        return found;
    }

    private static int Number(Group group) => int.Parse(group.ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture);

    [GeneratedRegex(@"Compiling entry function '([^']+)'")]
    private static partial Regex EntryLine();

    [GeneratedRegex(@"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")]
    private static partial Regex StackLine();

    [GeneratedRegex(@"Used (\d+) registers")]
    private static partial Regex RegisterLine();

    [GeneratedRegex(@"(\d+) bytes smem")]
    private static partial Regex SharedPart();
}
