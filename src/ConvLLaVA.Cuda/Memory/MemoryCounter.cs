namespace ConvLLaVA.Cuda;

/// <summary>Driver allocations of one kind in one context: how many, how large, and how many there ever were.</summary>
public sealed class MemoryCounter
{
    private long _bytes;
    private long _live;
    private long _calls;

    /// <summary>Bytes allocated now.</summary>
    public long Bytes => Interlocked.Read(ref _bytes);

    /// <summary>Allocations alive now.</summary>
    public long Live => Interlocked.Read(ref _live);

    /// <summary>Allocations ever made; it does not change while no memory is asked of the driver.</summary>
    public long Calls => Interlocked.Read(ref _calls);

    internal void Allocated(long bytes)
    {
        Interlocked.Add(ref _bytes, bytes);
        Interlocked.Increment(ref _live);
        Interlocked.Increment(ref _calls);
    }

    internal void Freed(long bytes)
    {
        Interlocked.Add(ref _bytes, -bytes);
        Interlocked.Decrement(ref _live);
    }
}
