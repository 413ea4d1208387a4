namespace ConvLLaVA.Engine.Gpu;

/// <summary>What a multiprocessor of an architecture holds, from NVIDIA's programming guide, and how many blocks of a kernel fit.</summary>
/// <param name="Warps">Most warps at a time.</param>
/// <param name="Blocks">Most blocks at a time.</param>
/// <param name="SharedBytes">Shared memory of all blocks.</param>
internal readonly record struct Multiprocessor(int Warps, int Blocks, int SharedBytes)
{
    private const int Registers = 65536;
    private const int RegistersAWarpIsGivenBy = 256;
    private const int WarpsAreGivenBy = 4; // one scheduler each
    private const int SharedIsGivenBy = 128;
    private const int KeptByTheSystem = 1024; // of every block's shared memory, from Ampere on

    /// <summary>Shared memory that one block may have after opting in.</summary>
    public int LargestBlockBytes => SharedBytes > 64 << 10 ? SharedBytes - KeptByTheSystem : SharedBytes;

    /// <summary>The multiprocessor of <paramref name="architecture"/> (e.g. 90).</summary>
    public static Multiprocessor Of(int architecture) => architecture switch
    {
        < 80 => new(32, 16, 64 << 10),
        80 or 87 => new(64, 32, 164 << 10),
        86 => new(48, 16, 100 << 10),
        88 or 89 => new(48, 24, 100 << 10),
        < 120 => new(64, 32, 228 << 10),
        _ => new(48, 24, 100 << 10),
    };

    /// <summary>Blocks of a kernel that fit at a time.</summary>
    /// <param name="architecture">The architecture.</param>
    /// <param name="threads">Threads of a block.</param>
    /// <param name="registers">Registers of a thread.</param>
    /// <param name="sharedBytes">Shared memory of a block, static and dynamic.</param>
    public static int BlocksOf(int architecture, int threads, int registers, int sharedBytes)
    {
        Multiprocessor sm = Of(architecture);
        int warps = (threads + 31) / 32;
        int byWarps = sm.Warps / warps;
        int warpRegisters = Math.Max(1, RoundUp(registers * 32, RegistersAWarpIsGivenBy));
        int byRegisters = Registers / warpRegisters / WarpsAreGivenBy * WarpsAreGivenBy / warps;
        int perBlock = RoundUp(sharedBytes + (sm.SharedBytes - sm.LargestBlockBytes), SharedIsGivenBy);
        int byShared = perBlock == 0 ? sm.Blocks : sm.SharedBytes / perBlock;
        return Math.Min(Math.Min(sm.Blocks, byWarps), Math.Min(byRegisters, byShared));
    }

    private static int RoundUp(int value, int step) => (value + step - 1) / step * step;
}
