using System.Runtime.InteropServices;

namespace ConvLLaVA.Engine.Tensors;

/// <summary>Pages of memory from the system, and advice to it about them. None of it changes what a program computes.</summary>
internal static unsafe partial class MappedPages
{
    /// <summary>Bytes of a huge page of x86-64 and, mostly, of ARM.</summary>
    public const int HugePage = 2 << 20;

    private const int ReadWrite = 3; // PROT_READ | PROT_WRITE
    private const int PrivateAnonymous = 0x22; // MAP_PRIVATE | MAP_ANONYMOUS
    private const int DontNeed = 4; // MADV_DONTNEED
    private const int WantsHugePages = 14; // MADV_HUGEPAGE

    /// <summary>Takes memory: of the size of a huge page and more from the system, aligned to those. Freed, it goes back at once; the C library would keep
    /// blocks of up to 32 MiB, and those between longer-lived neighbours for good, 300 MiB in all while a 7B model is quantised.</summary>
    /// <exception cref="OutOfMemoryException">There is none left.</exception>
    public static nint Take(long bytes)
    {
        if (!FromSystem(bytes)) return (nint)NativeMemory.AlignedAlloc((nuint)Math.Max(bytes, 1), bytes >= HugePage ? (nuint)HugePage : 4096);
        nint length = InPages(bytes), start = Map(0, (nuint)(length + HugePage), ReadWrite, PrivateAnonymous, -1, 0);
        if (start == -1) throw new OutOfMemoryException();
        nint taken = (start + HugePage - 1) / HugePage * HugePage, spare = start + HugePage - taken;
        if (taken > start) _ = Unmap(start, (nuint)(taken - start));
        if (spare > 0) _ = Unmap(taken + length, (nuint)spare);
        return taken;
    }

    /// <summary>Gives back what <see cref="Take"/> gave for so many bytes.</summary>
    public static void Free(nint address, long bytes)
    {
        if (FromSystem(bytes)) _ = Unmap(address, (nuint)InPages(bytes));
        else NativeMemory.AlignedFree((void*)address);
    }

    private static bool FromSystem(long bytes) => bytes >= HugePage && OperatingSystem.IsLinux();

    private static nint InPages(long bytes)
    {
        nint page = Environment.SystemPageSize;
        return ((nint)bytes + page - 1) / page * page;
    }

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

    [LibraryImport("libc", EntryPoint = "mmap")]
    private static partial nint Map(nint address, nuint length, int protection, int flags, int file, long offset);

    [LibraryImport("libc", EntryPoint = "munmap")]
    private static partial int Unmap(nint address, nuint length);

    [LibraryImport("libc", EntryPoint = "madvise")]
    private static partial int Advise(nint address, nuint length, int advice);
}
