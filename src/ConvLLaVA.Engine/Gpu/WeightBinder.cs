using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Binds checkpoint tensors: checks their shapes and plans what of them goes where on the device, in which type and order.</summary>
internal sealed class WeightBinder(WeightArena arena, DType type)
{
    /// <inheritdoc cref="IBackend.LoadLinear"/>
    public GpuLinear LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias, WeightTensor? scale)
    {
        ArgumentOutOfRangeException.ThrowIfZero(rowBlocks.Count, nameof(rowBlocks));
        int inFeatures = rowBlocks[0].Shape.Length == 2 ? checked((int)rowBlocks[0].Shape[1]) : 0, rows = 0;
        foreach (WeightTensor block in rowBlocks)
        {
            WeightSource.Require(block, block.Shape.Length == 2 && block.Shape[0] > 0 && block.Shape[1] == inFeatures && block.DType.IsFloating(), $"rows of {inFeatures} floats");
            rows = checked(rows + (int)block.Shape[0]);
        }
        if (bias is not null) WeightSource.Require(bias, bias.ElementCount == rows && bias.DType.IsFloating(), $"[{rows}]");
        if (scale is null) return Linear(inFeatures, rows, Matrix(rowBlocks), bias is null ? null : TensorConversion.ToFloat32(bias), 1);

        WeightSource.Require(scale, scale.ElementCount == rows && scale.DType.IsFloating(), $"[{rows}]");
        if (rowBlocks.Count != 1) throw new ArgumentException("A scale goes with one block of rows.", nameof(scale));
        float[] factors = TensorConversion.ToFloat32(scale);
        float[]? biases = bias is null ? null : TensorConversion.ToFloat32(bias);
        for (int i = 0; i < rows && biases is not null; i++) biases[i] *= factors[i];
        float alpha = RangeFactor(factors);
        for (int i = 0; i < rows; i++) factors[i] /= alpha; // a power of two: exact
        return Linear(inFeatures, rows, arena.Add(new ScaledSource(rowBlocks[0], factors, type)), biases, alpha);
    }

    /// <inheritdoc cref="IBackend.LoadPatchConvolution"/>
    public GpuLinear LoadPatchConvolution(WeightTensor weight, WeightTensor bias)
    {
        WeightSource.Require(weight, weight.Shape.Length == 4 && weight.Shape[2] == weight.Shape[3] && weight.DType.IsFloating(), "[out, in, k, k]");
        int rows = checked((int)weight.Shape[0]);
        WeightSource.Require(bias, bias.ElementCount == rows && bias.DType.IsFloating(), $"[{rows}]");
        var source = new PatchSource(weight, type);
        return Linear(source.Row, rows, arena.Add(source), TensorConversion.ToFloat32(bias), 1);
    }

    /// <inheritdoc cref="IBackend.LoadNorm"/>
    public GpuNorm LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon)
    {
        WeightSource.Require(weight, weight.Shape.Length == 1 && weight.DType.IsFloating(), "[features]");
        if (bias is not null) WeightSource.Require(bias, bias.ElementCount == weight.ElementCount && bias.DType.IsFloating(), $"[{weight.ElementCount}]");
        return new GpuNorm(checked((int)weight.ElementCount), epsilon, arena.Add(new PlainSource([weight], DType.Float32)),
            bias is null ? null : arena.Add(new PlainSource([bias], DType.Float32)));
    }

    /// <inheritdoc cref="IBackend.LoadDepthwise"/>
    public GpuDepthwise LoadDepthwise(WeightTensor filter, WeightTensor bias)
    {
        WeightSource.Require(filter, filter.Shape.Length == 4 && filter.Shape[1] == 1 && filter.Shape[2] == 7 && filter.Shape[3] == 7 && filter.DType.IsFloating(), "[channels, 1, 7, 7]");
        int channels = checked((int)filter.Shape[0]);
        WeightSource.Require(bias, bias.ElementCount == channels && bias.DType.IsFloating(), $"[{channels}]");
        return new GpuDepthwise(channels, arena.Add(new DepthwiseSource(filter, type)), arena.Add(new PlainSource([bias], DType.Float32)));
    }

    /// <inheritdoc cref="IBackend.LoadEmbedding"/>
    public GpuEmbedding LoadEmbedding(WeightTensor table)
    {
        WeightSource.Require(table, table.Shape.Length == 2 && table.DType.IsFloating(), "[vocab_size, hidden_size]");
        return new GpuEmbedding(checked((int)table.Shape[0]), checked((int)table.Shape[1]), arena.AddShared(table, type));
    }

    private WeightArena.Slot Matrix(IReadOnlyList<WeightTensor> rowBlocks)
        => rowBlocks.Count == 1 ? arena.AddShared(rowBlocks[0], type) : arena.Add(new PlainSource([.. rowBlocks], type));

    private GpuLinear Linear(int inFeatures, int outFeatures, WeightArena.Slot matrix, float[]? bias, float alpha)
    {
        WeightArena.Slot? wide = bias is null ? null : arena.Add(new ValueSource(bias, DType.Float32));
        WeightArena.Slot? stored = bias is null || type == DType.Float32 ? wide : arena.Add(new ValueSource(bias, type));
        return new GpuLinear(inFeatures, outFeatures, matrix, wide, stored, alpha);
    }

    /// <summary>The power of two that is left out of a layer scale folded into fp16 weights, so that the largest factor becomes 8 to 16:
    /// scales can be as small as 1e-6, and the products would vanish. The matrix product multiplies it back in fp32. Other types
    /// have the range.</summary>
    private float RangeFactor(float[] factors)
    {
        if (type != DType.Float16) return 1;
        float largest = 0;
        foreach (float factor in factors) largest = Math.Max(largest, Math.Abs(factor));
        return largest is > 0 and < 8 ? MathF.ScaleB(1, Math.ILogB(largest) - 3) : 1;
    }
}
