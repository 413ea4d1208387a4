using System.Runtime.InteropServices;

namespace ConvLLaVA.Engine.Tensors;

/// <summary>Gives pages of a mapped file back to the system once they have been read for the last time. They stay in the system's cache of
/// files and come back when they are touched, so this only changes how much memory the process holds.</summary>
internal static partial class MappedPages
{
    private const int DontNeed = 4; // MADV_DONTNEED

    /// <summary>Gives back the whole pages within a range that must lie in a read-only mapping of a file: of other memory, the contents
    /// would be lost.</summary>
    public static void GiveBack(nint address, long length)
    {
        if (!OperatingSystem.IsLinux()) return;
        nint page = Environment.SystemPageSize, first = (address + page - 1) / page * page, end = (address + (nint)length) / page * page;
        if (end > first) _ = Advise(first, (nuint)(end - first), DontNeed); // advice: there is nothing to do when it is not taken
    }

    [LibraryImport("libc", EntryPoint = "madvise")]
    private static partial int Advise(nint address, nuint length, int advice);
}
