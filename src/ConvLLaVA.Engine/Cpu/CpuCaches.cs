using System.Globalization;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Sizes in bytes of the caches by which work is cut.</summary>
/// <param name="Level2">Of one core, or of the few that share it.</param>
/// <param name="Level3">Of all cores that share it; the second level's where there is no third.</param>
internal readonly record struct CpuCaches(long Level2, long Level3)
{
    private const string Folder = "/sys/devices/system/cpu/cpu0/cache";

    /// <summary>What is assumed of a processor that does not say.</summary>
    public static CpuCaches Unknown { get; } = new(1 << 20, 16 << 20);

    /// <summary>This machine's, read once.</summary>
    public static CpuCaches Current { get; } = Read(Folder);

    /// <summary>Reads the folder in which Linux describes a core's caches; what is not there stays as in <see cref="Unknown"/>.</summary>
    public static CpuCaches Read(string folder)
    {
        long second = 0, third = 0;
        try
        {
            foreach (string cache in Directory.Exists(folder) ? Directory.GetDirectories(folder, "index*") : [])
            {
                string level = Line(cache, "level"), kind = Line(cache, "type"), size = Line(cache, "size");
                if (kind == "Instruction" || !size.EndsWith('K')) continue;
                if (!long.TryParse(size[..^1], NumberStyles.None, CultureInfo.InvariantCulture, out long kilobytes) || kilobytes is 0 or > 1 << 24) continue;
                if (level == "2") second = kilobytes << 10;
                if (level == "3") third = kilobytes << 10;
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // A container may hide the folder or parts of it; sizes only choose block sizes.
        }
        if (third == 0) third = second > 0 ? second : Unknown.Level3;
        return new CpuCaches(second > 0 ? second : Unknown.Level2, third);
    }

    private static string Line(string cache, string name) => File.ReadAllText(Path.Combine(cache, name)).Trim();
}
