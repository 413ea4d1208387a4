namespace ConvLLaVA.Engine.Tensors;

/// <summary>Who holds a piece of backend memory.</summary>
public enum MemoryOwner
{
    /// <summary>Weights copied or repacked by the backend.</summary>
    Weights,

    /// <summary>Weights used in place in the memory-mapped checkpoint files; the operating system may drop and re-read them.</summary>
    MappedWeights,

    /// <summary>Activations of the running step, sized once by planning the largest step.</summary>
    Workspace,

    /// <summary>Pages of the KV cache.</summary>
    KvCache,

    /// <summary>Projected image features of requests whose prompt is not fully processed yet.</summary>
    ImageFeatures,
}

/// <summary>Counts the bytes each owner holds. Thread-safe; every byte added is taken away again when its owner lets go,
/// so all counts are zero after the engine is disposed.</summary>
public sealed class MemoryLedger
{
    private readonly long[] _held = new long[Enum.GetValues<MemoryOwner>().Length];
    private readonly long[] _peak = new long[Enum.GetValues<MemoryOwner>().Length];

    /// <summary>Bytes <paramref name="owner"/> holds now.</summary>
    public long Held(MemoryOwner owner) => Interlocked.Read(ref _held[(int)owner]);

    /// <summary>The most bytes <paramref name="owner"/> ever held.</summary>
    public long Peak(MemoryOwner owner) => Interlocked.Read(ref _peak[(int)owner]);

    /// <summary>Bytes held by all owners.</summary>
    public long Total => Enum.GetValues<MemoryOwner>().Sum(Held);

    /// <summary>Bytes by owner, for reports.</summary>
    public IReadOnlyDictionary<MemoryOwner, long> Snapshot() => Enum.GetValues<MemoryOwner>().ToDictionary(owner => owner, Held);

    /// <summary>Books <paramref name="bytes"/> more (or, when negative, less) on <paramref name="owner"/>.</summary>
    /// <exception cref="InvalidOperationException">More would be given back than is held.</exception>
    public void Add(MemoryOwner owner, long bytes)
    {
        long held = Interlocked.Add(ref _held[(int)owner], bytes);
        if (held < 0) throw new InvalidOperationException($"{owner} gave back {-held} bytes more than it held.");
        long peak;
        while (held > (peak = Interlocked.Read(ref _peak[(int)owner])))
        {
            if (Interlocked.CompareExchange(ref _peak[(int)owner], held, peak) == peak) break;
        }
    }
}

/// <summary>One allocation of backend memory; disposing gives it back (once, in any order).</summary>
public abstract class MemoryBlock : IDisposable
{
    /// <summary>Address of the first byte, aligned to at least 64 bytes.</summary>
    public abstract nint Data { get; }

    /// <summary>Size in bytes.</summary>
    public abstract long ByteLength { get; }

    /// <inheritdoc/>
    public abstract void Dispose();
}
