using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Rows of a stored matrix, used where they lie.</summary>
/// <param name="Data">First element.</param>
/// <param name="FirstRow">Row of the whole matrix that this block starts with.</param>
/// <param name="Rows">Rows of the block.</param>
internal readonly record struct RowBlock(nint Data, int FirstRow, int Rows);

/// <summary>A matrix product's weights: stored rows in place, and what follows the product in small float arrays.</summary>
internal sealed class CpuLinear(int inFeatures, int outFeatures, DType dtype, RowBlock[] blocks, nint bias, nint scale, bool isFinite = false)
    : LinearWeight(inFeatures, outFeatures)
{
    /// <summary>Type of the stored elements, the same in all blocks.</summary>
    public DType DType { get; } = dtype;

    /// <summary>True when all elements have been found finite, which matters to <see cref="DType.Float16"/> only.</summary>
    public bool IsFinite { get; } = isFinite;

    /// <summary>The blocks, one below the other. [out, in]</summary>
    public RowBlock[] Blocks { get; } = blocks;

    /// <summary>Bias, already multiplied by the scale, or zero. [out]</summary>
    public nint Bias { get; } = bias;

    /// <summary>Factor of every output, or zero. Kept beside the weights because rounding it into bfloat16 would change them. [out]</summary>
    public nint Scale { get; } = scale;

    /// <summary>Address of a row.</summary>
    public nint Row(int row)
    {
        int block = 0;
        while (row >= Blocks[block].FirstRow + Blocks[block].Rows) block++;
        return Blocks[block].Data + (nint)((long)(row - Blocks[block].FirstRow) * InFeatures * DType.SizeInBytes());
    }

    /// <summary>Rows from <paramref name="row"/> to the end of its block.</summary>
    public int RowsLeftInBlock(int row)
    {
        int block = 0;
        while (row >= Blocks[block].FirstRow + Blocks[block].Rows) block++;
        return Blocks[block].FirstRow + Blocks[block].Rows - row;
    }
}

/// <summary>LayerNorm (bias set) or RMSNorm. Both [features], float.</summary>
internal sealed class CpuNorm(int features, float epsilon, nint weight, nint bias) : NormWeight(features, epsilon)
{
    /// <summary>Factor. [features]</summary>
    public nint Weight { get; } = weight;

    /// <summary>Offset, or zero for an RMSNorm. [features]</summary>
    public nint Bias { get; } = bias;
}

/// <summary>A depthwise filter with 16 channels innermost, so that one load serves them and their taps lie together.</summary>
internal sealed class CpuDepthwise(int channels, nint filter, nint bias) : DepthwiseWeight(channels)
{
    /// <summary>Taps, float, zeros behind the last channel. [C / 16, 49, 16]</summary>
    public nint Filter { get; } = filter;

    /// <summary>Offset, float. [C]</summary>
    public nint Bias { get; } = bias;
}

/// <summary>The embedding table where it lies. [vocab_size, hidden_size]</summary>
internal sealed class CpuEmbedding(int vocabularySize, int hiddenSize, DType dtype, nint data)
    : EmbeddingTable(vocabularySize, hiddenSize)
{
    /// <summary>Type of the stored elements.</summary>
    public DType DType { get; } = dtype;

    /// <summary>First element.</summary>
    public nint Data { get; } = data;
}
