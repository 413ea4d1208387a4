using System.Globalization;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Sizes of a processor's data caches in bytes.</summary>
/// <param name="Level1">Of one core.</param>
/// <param name="Level2">Of one core, or of the few that share it.</param>
/// <param name="Level3">Of all cores that share it; the second level's where there is no third.</param>
internal readonly record struct CpuCaches(long Level1, long Level2, long Level3)
{
    private const string Folder = "/sys/devices/system/cpu/cpu0/cache";

    /// <summary>What is assumed of a processor that does not say: the least that one of the last ten years has.</summary>
    public static CpuCaches Unknown { get; } = new(32 << 10, 256 << 10, 4 << 20);

    /// <summary>This machine's, read once.</summary>
    public static CpuCaches Current { get; } = Read(Folder);

    /// <summary>Reads the folder in which Linux describes a core's caches; what is not there stays as in <see cref="Unknown"/>.</summary>
    public static CpuCaches Read(string folder)
    {
        Span<long> sizes = [0, 0, 0];
        try
        {
            foreach (string cache in Directory.Exists(folder) ? Directory.GetDirectories(folder, "index*") : [])
            {
                string level = Line(cache, "level"), kind = Line(cache, "type"), size = Line(cache, "size");
                if (kind == "Instruction" || level is not ("1" or "2" or "3")) continue;
                if (size.EndsWith('K') && long.TryParse(size[..^1], NumberStyles.None, CultureInfo.InvariantCulture, out long kilobytes) && kilobytes is > 0 and < 1 << 24)
                    sizes[level[0] - '1'] = kilobytes << 10;
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // A container may hide the folder or parts of it; sizes only choose block sizes.
        }
        long first = sizes[0] > 0 ? sizes[0] : Unknown.Level1, second = sizes[1] > 0 ? sizes[1] : Unknown.Level2;
        long third = sizes[2] > 0 ? sizes[2] : sizes[1] > 0 ? second : Unknown.Level3;
        return new CpuCaches(first, second, third);
    }

    private static string Line(string cache, string name) => File.ReadAllText(Path.Combine(cache, name)).Trim();
}
