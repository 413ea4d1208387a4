using System.Runtime.InteropServices;

namespace ConvLLaVA.Engine.Tensors;

/// <summary>Advice to the system about pages of memory. None of it changes what a program computes.</summary>
internal static partial class MappedPages
{
    /// <summary>Bytes of a huge page of x86-64 and, mostly, of ARM.</summary>
    public const int HugePage = 2 << 20;

    private const int DontNeed = 4; // MADV_DONTNEED
    private const int WantsHugePages = 14; // MADV_HUGEPAGE

    /// <summary>Asks for huge pages behind memory that is about to be written for the first time: a stream of weights then misses the
    /// processor's table of pages 512 times less often.</summary>
    public static void PreferHuge(nint address, long length)
    {
        if (OperatingSystem.IsLinux()) _ = Advise(address, (nuint)length, WantsHugePages);
    }

    /// <summary>Gives back the whole pages within a range that must lie in a read-only mapping of a file, once they have been read for the last time:
    /// they stay in the system's cache of files and come back when they are touched. Of other memory, the contents would be lost.</summary>
    public static void GiveBack(nint address, long length)
    {
        if (!OperatingSystem.IsLinux()) return;
        nint page = Environment.SystemPageSize, first = (address + page - 1) / page * page, end = (address + (nint)length) / page * page;
        if (end > first) _ = Advise(first, (nuint)(end - first), DontNeed); // advice: there is nothing to do when it is not taken
    }

    [LibraryImport("libc", EntryPoint = "madvise")]
    private static partial int Advise(nint address, nuint length, int advice);
}
