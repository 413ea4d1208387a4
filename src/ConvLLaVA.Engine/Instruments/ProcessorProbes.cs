using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>What the processor can do at best on the threads of its backend: reading and multiplying.</summary>
internal static unsafe class ProcessorProbes
{
    private const long BytesPerThread = 256 << 20; // far more than a last-level cache holds
    private const long Rounds = 2_000_000;
    private static readonly TimeSpan AtMost = TimeSpan.FromSeconds(1);

    /// <summary>Gigabytes a second that all threads together read in order from memory.</summary>
    public static double ReadGigabytesPerSecond(InstrumentBackend device)
    {
        var backend = (CpuBackend)device.Backend;
        using MemoryBlock block = backend.Allocate(backend.Threads * BytesPerThread, MemoryOwner.Workspace);
        float* data = (float*)block.Data;
        new Span<byte>(data, (int)BytesPerThread).Fill(0);
        for (int t = 1; t < backend.Threads; t++) Buffer.MemoryCopy(data, (byte*)data + (t * BytesPerThread), BytesPerThread, BytesPerThread);
        // Pieces, so that a thread that was held up does not hold up the others.
        const int Pieces = 64;
        nint each = (nint)(BytesPerThread / sizeof(float) / Pieces);
        Timing time = Timing.Measure(device.Timer, () => backend.Pool.Run(backend.Threads * Pieces, (piece, _) => backend.Kernels.ReadAll(data + (piece * each), each)), 10, AtMost);
        return block.ByteLength / time.Low / 1e6;
    }

    /// <summary>Teraflops a second of fused multiply-adds in registers on all threads together.</summary>
    public static double FmaTeraflopsPerSecond(InstrumentBackend device)
    {
        var backend = (CpuBackend)device.Backend;
        const int Pieces = 16;
        Timing time = Timing.Measure(device.Timer, () => backend.Pool.Run(backend.Threads * Pieces, (_, _) => backend.Kernels.MultiplyAdds(Rounds / Pieces)), 20, AtMost);
        return (double)backend.Threads * Rounds * backend.Kernels.FlopsPerRound / time.Low / 1e9;
    }
}
