using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>What each operation takes from the workspace, in one place for the backend that computes and the one that only plans.</summary>
internal static class GpuScratch
{
    /// <inheritdoc cref="IBackend.PreferredTileRows"/>
    public static int PreferredTileRows(int columns, DType type)
    {
        // The expansion of a ConvNeXt block is written, activated and read again: 32 MiB of it stay in the L2 cache of today's GPUs.
        long rows = (32L << 20) / Math.Max(1, (long)columns * type.SizeInBytes());
        return (int)Math.Clamp(rows / 256 * 256, 1024, 1 << 20);
    }

    /// <inheritdoc cref="IBackend.PaddedDecodeRows"/>
    public static int PaddedDecodeRows(int rows)
    {
        if (rows > KernelShape.MaxGemvRows) return (rows + 7) / 8 * 8;
        int padded = 1;
        while (padded < rows) padded *= 2;
        return padded;
    }

    /// <summary>Pictures as bytes [n * H, W * 3] and the table of normalised values [3, 256].</summary>
    public static (Tensor Pixels, Tensor Table) Patches(Workspace workspace, ImageBatch images)
        => (workspace.Take(images.Count * images.Height, images.Width * 3, DType.UInt8), workspace.Take(3, 256, DType.Float32));

    /// <summary>The normalised hidden state and the projection of it.</summary>
    public static (Tensor Normed, Tensor Projected) Qkv(Workspace workspace, Tensor input, LinearWeight qkv)
        => (workspace.Take(input.Rows, input.Columns), workspace.Take(input.Rows, qkv.OutFeatures));

    /// <summary>Splits of a context.</summary>
    public static int Splits(int context) => Math.Max(1, (context + KernelShape.SplitTokens - 1) / KernelShape.SplitTokens);

    /// <summary>The states of all splits of decoding rows. [rows * heads * splits, head_dim + 2]</summary>
    public static Tensor Partial(Workspace workspace, KernelShape shape, int rows, int splits)
        => shape.Deterministic ? default : workspace.Take(checked(rows * shape.Heads * splits), shape.HeadDim + 2, DType.Float32);

    /// <summary>As <see cref="Partial"/> for a planned step: every sequence may decode, at the longest context.</summary>
    public static void PlanAttention(Workspace workspace, KernelShape shape, PagedBatch batch)
        => Partial(workspace, shape, Math.Min(batch.SequenceCount, batch.TokenCount), Splits(batch.MaxBlocks * shape.BlockSize));

    /// <summary>The normalised hidden state, both projections, and their gated product.</summary>
    public static (Tensor Normed, Tensor Both, Tensor Gated) Mlp(Workspace workspace, Tensor hidden, int inner)
        => (workspace.Take(hidden.Rows, hidden.Columns), workspace.Take(hidden.Rows, 2 * inner), workspace.Take(hidden.Rows, inner));

    /// <summary>Logits with penalties and weights of the draw, both [rows, vocab], and the results of <see cref="SamplingResults"/>.</summary>
    public static (Tensor Penalised, Tensor Weights, Tensor Results) Sampling(Workspace workspace, int rows, int vocabulary)
        => (workspace.Take(rows, vocabulary, DType.Float32), workspace.Take(rows, vocabulary, DType.Int32), workspace.Take(rows, SamplingResults.MostWords, DType.Int32));

    /// <summary>The normalised rows whose logits are wanted.</summary>
    public static Tensor Logits(Workspace workspace, Tensor hidden, int count) => workspace.Take(count, hidden.Columns);
}
