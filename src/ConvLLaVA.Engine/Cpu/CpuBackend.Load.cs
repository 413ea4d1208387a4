using System.Numerics;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

public sealed unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    public LinearWeight LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias = null, WeightTensor? scale = null)
    {
        ArgumentOutOfRangeException.ThrowIfZero(rowBlocks.Count, nameof(rowBlocks));
        WeightTensor first = rowBlocks[0];
        foreach (WeightTensor block in rowBlocks) RequireShape(block, block.Shape.Length == 2, "[out, in]");
        if (first.Quantized is not null) return BindQuantized(rowBlocks, bias, scale);
        return Bind(rowBlocks, checked((int)first.Shape[1]), bias, scale);
    }

    /// <inheritdoc/>
    public LinearWeight LoadPatchConvolution(WeightTensor weight, WeightTensor bias)
    {
        RequireShape(weight, weight.Shape.Length == 4 && weight.Shape[2] == weight.Shape[3], "[out, in, k, k]");
        // Gathered rows are in (channel, ky, kx) order, as the weights lie already.
        return Bind([weight], checked((int)(weight.Shape[1] * weight.Shape[2] * weight.Shape[3])), bias, null);
    }

    private CpuLinear Bind(IReadOnlyList<WeightTensor> rowBlocks, int inFeatures, WeightTensor? bias, WeightTensor? scale)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        DType dtype = rowBlocks[0].DType;
        var blocks = new List<RowBlock>();
        int rows = 0;
        foreach (WeightTensor block in rowBlocks)
        {
            RequireShape(block, block.DType.IsFloating(), "a floating-point type");
            RequireShape(block, block.DType == dtype && block.Quantized is null, $"{dtype.Name()} as {rowBlocks[0].Name}");
            RequireShape(block, block.Shape[0] > 0 && block.ElementCount == block.Shape[0] * inFeatures, $"rows of {inFeatures}");
            int blockRows = checked((int)block.Shape[0]);
            blocks.Add(new RowBlock(block.Data, rows, blockRows));
            rows = checked(rows + blockRows);
        }
        if (bias is not null) RequireShape(bias, bias.ElementCount == rows, $"[{rows}]");
        if (scale is not null) RequireShape(scale, scale.ElementCount == rows, $"[{rows}]");
        nint scales = scale is null ? 0 : CopyWidened(scale);
        nint biases = bias is null ? 0 : CopyWidened(bias);
        if (scales != 0 && biases != 0)
        {
            for (int i = 0; i < rows; i++) ((float*)biases)[i] *= ((float*)scales)[i];
        }
        foreach (WeightTensor block in rowBlocks) BookMapped(block);
        return new CpuLinear(inFeatures, rows, dtype, [.. blocks], biases, scales, dtype == DType.Float16 && rowBlocks.All(HasOnlyFiniteHalves));
    }

    /// <inheritdoc/>
    public NormWeight LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon)
    {
        RequireShape(weight, weight.Shape.Length == 1, "[features]");
        if (bias is not null) RequireShape(bias, bias.ElementCount == weight.ElementCount, $"[{weight.ElementCount}]");
        return new CpuNorm(checked((int)weight.ElementCount), epsilon, CopyWidened(weight), bias is null ? 0 : CopyWidened(bias));
    }

    /// <inheritdoc/>
    public DepthwiseWeight LoadDepthwise(WeightTensor filter, WeightTensor bias)
    {
        RequireShape(filter, filter.Shape.Length == 4 && filter.Shape[1] == 1 && filter.Shape[2] == 7 && filter.Shape[3] == 7, "[channels, 1, 7, 7]");
        int channels = checked((int)filter.Shape[0]);
        RequireShape(bias, bias.ElementCount == channels, $"[{channels}]");
        RequireShape(filter, filter.DType.IsFloating(), "a floating-point type");
        long floats = (long)Simd.RoundUp(channels) * 49;
        float* taps = (float*)Own(floats * sizeof(float));
        new Span<float>(taps, checked((int)floats)).Clear();
        for (int c = 0; c < channels; c++)
        {
            float* to = taps + (long)(c / Simd.Lanes) * 49 * Simd.Lanes + c % Simd.Lanes;
            for (int tap = 0; tap < 49; tap++) to[tap * Simd.Lanes] = Widen(filter.Data, filter.DType, (long)c * 49 + tap);
        }
        return new CpuDepthwise(channels, (nint)taps, CopyWidened(bias));
    }

    /// <inheritdoc/>
    public EmbeddingTable LoadEmbedding(WeightTensor table)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        RequireShape(table, table.Shape.Length == 2 && table.DType.IsFloating(), "[vocab_size, hidden_size]");
        BookMapped(table);
        return new CpuEmbedding(checked((int)table.Shape[0]), checked((int)table.Shape[1]), table.DType, table.Data);
    }

    /// <inheritdoc/>
    public void CompleteLoading(Action<string, double>? progress, CancellationToken cancellation) => progress?.Invoke("weights", 1);

    // Reads every weight once, which a file that is not in memory yet makes slow, and saves a tenth of the time of every token.
    private bool HasOnlyFiniteHalves(WeightTensor tensor)
    {
        const int Piece = 1 << 20;
        var work = new FiniteWork((ushort*)tensor.Data, new bool[(tensor.ElementCount + Piece - 1) / Piece], Piece, tensor.ElementCount);
        _pool.RunInShares(work.Found.Length, 1, ref work);
        return !work.Found.Contains(true);
    }

    // Found: pieces that hold an infinity or a NaN.
    private readonly struct FiniteWork(ushort* halves, bool[] found, int piece, long count) : IWork
    {
        public bool[] Found => found;

        public void Do(int first, int end, int worker)
        {
            for (int i = first; i < end; i++)
            {
                long start = (long)i * piece;
                found[i] = HasSpecial(new ReadOnlySpan<ushort>(halves + start, (int)Math.Min(piece, count - start)));
            }
        }

        // The highest exponent: 0x7C00 and above, without the sign.
        private static bool HasSpecial(ReadOnlySpan<ushort> values)
        {
            Vector<ushort> most = default, magnitude = new(0x7FFF);
            int whole = values.Length - (values.Length % Vector<ushort>.Count);
            for (int i = 0; i < whole; i += Vector<ushort>.Count) most = Vector.Max(most, new Vector<ushort>(values[i..]) & magnitude);
            if (Vector.GreaterThanOrEqualAny(most, new Vector<ushort>(0x7C00))) return true;
            foreach (ushort value in values[whole..])
            {
                if ((value & 0x7FFF) >= 0x7C00) return true;
            }
            return false;
        }
    }

    // A tensor bound twice (tied embeddings) is held once; one in memory of this backend is booked there.
    private void BookMapped(WeightTensor tensor)
    {
        lock (_converted)
        {
            if (_converted.Exists(block => block.Holds(tensor.Data))) return;
        }
        if (!_mapped.Add(tensor.Data)) return;
        Memory.Add(MemoryOwner.MappedWeights, tensor.ByteLength);
        _mappedBytes += tensor.ByteLength;
    }

    private nint Own(long bytes)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        var block = new NativeBlock(Memory, MemoryOwner.Weights, bytes);
        _owned.Add(block);
        return block.Data;
    }

    private nint CopyWidened(WeightTensor tensor)
    {
        RequireShape(tensor, tensor.DType.IsFloating(), "a floating-point type");
        nint copy = Own(tensor.ElementCount * sizeof(float));
        for (long i = 0; i < tensor.ElementCount; i++) ((float*)copy)[i] = Widen(tensor.Data, tensor.DType, i);
        return copy;
    }

    private static float Widen(nint data, DType dtype, long index) => dtype switch
    {
        DType.Float32 => ((float*)data)[index],
        DType.Float16 => (float)((Half*)data)[index],
        DType.BFloat16 => BitConverter.UInt32BitsToSingle((uint)((ushort*)data)[index] << 16),
        _ => throw new ArgumentOutOfRangeException(nameof(dtype), dtype, null),
    };

    private static void RequireShape(WeightTensor tensor, bool condition, string expected)
    {
        if (!condition) throw new InvalidInputException($"{tensor.Source}: {tensor} was found where {expected} was expected.");
    }
}
