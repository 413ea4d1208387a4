using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>A matrix product's weights on the device: y = alpha * (x W^T) + bias, rows <c>[out, in]</c> in the storage type or quantised.</summary>
internal sealed class GpuLinear(int inFeatures, int outFeatures, WeightArena.Slot weight, WeightArena.Slot? bias, WeightArena.Slot? storedBias, float alpha, long byteLength)
    : LinearWeight(inFeatures, outFeatures)
{
    /// <summary>The matrix, a scale multiplied in, or its codes. [out, in]</summary>
    public nint Weight => weight.Data;

    /// <summary>Form of the matrix, of <see cref="KernelWeights"/>.</summary>
    public int Form { get; init; }

    /// <summary>Scales of a quantised matrix.</summary>
    public WeightArena.Slot? ScaleSlot { private get; init; }

    /// <summary>A factor for each row of a quantised matrix (layer scale), or null.</summary>
    public WeightArena.Slot? FactorSlot { private get; init; }

    /// <summary>Scales, or zero.</summary>
    public nint Scales => ScaleSlot?.Data ?? 0;

    /// <summary>Factors in float, or zero. [out]</summary>
    public nint Factors => FactorSlot?.Data ?? 0;

    /// <summary>Whether a kernel for few rows can take it: the weights are all there is to it.</summary>
    public bool IsPlain => bias is null && FactorSlot is null && Alpha == 1;

    /// <summary>Bytes of the matrix, scales included.</summary>
    public long ByteLength { get; } = byteLength;

    /// <summary>Bias in float, for our kernels, or zero. [out]</summary>
    public nint Bias => bias?.Data ?? 0;

    /// <summary>Bias in the storage type, which cuBLASLt's epilogue asks for, or zero. [out]</summary>
    public nint StoredBias => storedBias?.Data ?? 0;

    /// <summary>True when there is a bias.</summary>
    public bool HasBias => bias is not null;

    /// <summary>Factor of the product, a power of two: a layer scale is folded into the weights that much larger, so that small
    /// products do not fall out of fp16's range.</summary>
    public float Alpha { get; } = alpha;
}

/// <summary>LayerNorm (bias set) or RMSNorm on the device. Both [features], float.</summary>
internal sealed class GpuNorm(int features, float epsilon, WeightArena.Slot weight, WeightArena.Slot? bias) : NormWeight(features, epsilon)
{
    /// <summary>Factor. [features]</summary>
    public nint Weight => weight.Data;

    /// <summary>Offset, or zero for an RMSNorm. [features]</summary>
    public nint Bias => bias?.Data ?? 0;
}

/// <summary>A depthwise filter on the device.</summary>
internal sealed class GpuDepthwise(int channels, WeightArena.Slot filter, WeightArena.Slot bias) : DepthwiseWeight(channels)
{
    /// <summary>Taps in the storage type. [49, C]</summary>
    public nint Filter => filter.Data;

    /// <summary>Offset, float. [C]</summary>
    public nint Bias => bias.Data;
}

/// <summary>The embedding table on the device. [vocab_size, hidden_size]</summary>
internal sealed class GpuEmbedding(int vocabularySize, int hiddenSize, WeightArena.Slot table) : EmbeddingTable(vocabularySize, hiddenSize)
{
    /// <summary>First element, storage type.</summary>
    public nint Table => table.Data;
}

/// <summary>Pages on the device: for each layer a region of keys and behind it one of values,
/// <c>[pages, kv_heads, block_size, head_dim]</c> each.</summary>
internal sealed class GpuKvStorage : KvStorage
{
    private readonly GpuBlock _block;
    private readonly int _elementBytes;

    /// <summary>Allocates all pages.</summary>
    public GpuKvStorage(KvLayout layout, DType type, GpuMemory memory) : base(layout, SizeOf(layout, type))
    {
        _elementBytes = type.SizeInBytes();
        _block = memory.Allocate(ByteLength, MemoryOwner.KvCache);
    }

    /// <summary>Bytes of one page's keys (or values) of one layer.</summary>
    public long PageBytes => (long)Layout.NumKeyValueHeads * Layout.BlockSize * Layout.HeadDim * _elementBytes;

    /// <summary>The keys of one layer.</summary>
    public nint Keys(int layer) => _block.Data + (nint)(2L * layer * Layout.Blocks * PageBytes);

    /// <summary>The values of one layer.</summary>
    public nint Values(int layer) => Keys(layer) + (nint)(Layout.Blocks * PageBytes);

    /// <inheritdoc/>
    public override void Dispose() => _block.Dispose();

    private static long SizeOf(KvLayout layout, DType type)
        => checked(2L * layout.Layers * layout.Blocks * layout.NumKeyValueHeads * layout.BlockSize * layout.HeadDim * type.SizeInBytes());
}
