using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>A piece of memory for every worker, allocated once.</summary>
internal sealed unsafe class Scratch : IDisposable
{
    private readonly NativeBlock _memory;
    private readonly nint _stride;

    /// <summary>Allocates <paramref name="floats"/> for each of <paramref name="workers"/>.</summary>
    public Scratch(MemoryLedger ledger, int workers, int floats)
    {
        // An odd number of cache lines apart, so that the workers' pieces do not compete for the same cache sets.
        _stride = Simd.RoundUp(floats) + 17 * Simd.Lanes;
        _memory = new NativeBlock(ledger, MemoryOwner.Workspace, _stride * workers * sizeof(float));
        Floats = floats;
    }

    /// <summary>Floats each worker has.</summary>
    public int Floats { get; }

    /// <summary>The piece of one worker.</summary>
    public float* Of(int worker) => (float*)_memory.Data + worker * _stride;

    /// <inheritdoc/>
    public void Dispose() => _memory.Dispose();
}
