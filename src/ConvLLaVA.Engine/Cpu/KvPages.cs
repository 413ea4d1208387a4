using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Keys and values in float, two arrays <c>[layer, block, kv_head, block_size, row]</c>: what one head of one page needs lies
/// together, and a row is head_dim rounded up to whole vectors with zeros behind, so that attention has no tails.</summary>
internal sealed unsafe class KvPages : KvStorage
{
    private readonly NativeBlock _memory;

    /// <summary>Allocates all pages.</summary>
    public KvPages(KvLayout layout, MemoryLedger ledger) : base(layout, SizeOf(layout))
    {
        _memory = new NativeBlock(ledger, MemoryOwner.KvCache, ByteLength);
    }

    /// <summary>Floats of one key or value row.</summary>
    public int RowLength => Simd.RoundUp(Layout.HeadDim);

    private long FloatsPerBlock => (long)Layout.NumKeyValueHeads * Layout.BlockSize * RowLength;

    private static long SizeOf(KvLayout layout)
        => checked(2L * layout.Layers * layout.Blocks * layout.NumKeyValueHeads * layout.BlockSize * Simd.RoundUp(layout.HeadDim) * sizeof(float));

    /// <summary>The keys of one head of one page. [block_size, row]</summary>
    public float* Keys(int layer, int block, int head) => (float*)_memory.Data
        + ((long)layer * Layout.Blocks + block) * FloatsPerBlock + (long)head * Layout.BlockSize * RowLength;

    /// <summary>The values of one head of one page. [block_size, row]</summary>
    public float* Values(int layer, int block, int head) => Keys(layer, block, head) + Layout.Layers * (long)Layout.Blocks * FloatsPerBlock;

    /// <summary>Copies one page of all layers.</summary>
    public void CopyBlock(int source, int destination)
    {
        if (source == destination) return;
        long bytes = FloatsPerBlock * sizeof(float);
        for (int layer = 0; layer < Layout.Layers; layer++)
        {
            Buffer.MemoryCopy(Keys(layer, source, 0), Keys(layer, destination, 0), bytes, bytes);
            Buffer.MemoryCopy(Values(layer, source, 0), Values(layer, destination, 0), bytes, bytes);
        }
    }

    /// <inheritdoc/>
    public override void Dispose() => _memory.Dispose();
}
