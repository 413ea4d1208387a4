using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Binds checkpoint tensors: checks their shapes and plans what of them goes where on the device, in which type and order.</summary>
internal sealed class WeightBinder(WeightArena arena, DType type, long scratchBytes = WeightBinder.DefaultScratchBytes)
{
    /// <summary>Room to turn quantised weights into others in: enough rows of a 7B model for a full product.</summary>
    public const long DefaultScratchBytes = 64 << 20;

    /// <inheritdoc cref="IBackend.LoadLinear"/>
    public GpuLinear LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias, WeightTensor? scale)
    {
        ArgumentOutOfRangeException.ThrowIfZero(rowBlocks.Count, nameof(rowBlocks));
        int inFeatures = rowBlocks[0].Shape.Length == 2 ? checked((int)rowBlocks[0].Shape[1]) : 0, rows = 0;
        QuantFormat? format = rowBlocks[0].Quantized?.Format;
        foreach (WeightTensor block in rowBlocks)
        {
            WeightSource.Require(block, block.Shape.Length == 2 && block.Shape[0] > 0 && block.Shape[1] == inFeatures && block.Quantized?.Format == format && (format is not null || block.DType.IsFloating()),
                $"rows of {inFeatures} {(format is { } named ? named.Name() : "floats")}");
            rows = checked(rows + (int)block.Shape[0]);
        }
        if (bias is not null) WeightSource.Require(bias, bias.ElementCount == rows && bias.DType.IsFloating(), $"[{rows}]");
        if (scale is null) return Linear(inFeatures, rows, rowBlocks, bias is null ? null : TensorConversion.ToFloat32(bias));

        WeightSource.Require(scale, scale.ElementCount == rows && scale.DType.IsFloating(), $"[{rows}]");
        if (rowBlocks.Count != 1) throw new ArgumentException("A scale goes with one block of rows.", nameof(scale));
        float[] factors = TensorConversion.ToFloat32(scale);
        float[]? biases = bias is null ? null : TensorConversion.ToFloat32(bias);
        for (int i = 0; i < rows && biases is not null; i++) biases[i] *= factors[i];
        float alpha = RangeFactor(factors);
        for (int i = 0; i < rows; i++) factors[i] /= alpha; // a power of two: exact
        if (format is not null) return Quantised(rowBlocks, inFeatures, rows, biases, alpha, factors);
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

    private GpuLinear Linear(int inFeatures, int rows, IReadOnlyList<WeightTensor> rowBlocks, float[]? bias)
    {
        if (rowBlocks[0].Quantized is null) return Linear(inFeatures, rows, rowBlocks.Count == 1 ? arena.AddShared(rowBlocks[0], type) : arena.Add(new PlainSource([.. rowBlocks], type)), bias, 1);
        return Quantised(rowBlocks, inFeatures, rows, bias, 1, null);
    }

    /// <summary>A quantised matrix as it is, and its scales as kernels take them. Where blocks of nf4 run across rows and from one of several
    /// matrices into the next, the kernels could not tell whose they are: such weights are stored dequantised.</summary>
    private GpuLinear Quantised(IReadOnlyList<WeightTensor> rowBlocks, int inFeatures, int rows, float[]? bias, float alpha, float[]? factors)
    {
        QuantLayout layout = rowBlocks[0].Quantized!.Layout;
        if (rowBlocks.Count > 1 && layout.BlocksCrossRows) return Linear(inFeatures, rows, arena.Add(new DecodedSource(rowBlocks, type)), bias, alpha);
        WeightSource scales = new QuantScaleSource(rowBlocks), codes = new QuantCodeSource(rowBlocks);
        WeightArena.Slot scaleSlot = arena.Add(scales); // ahead of the codes, which let go of both
        arena.ReserveScratch((long)TileRows(rows, inFeatures) * inFeatures * type.SizeInBytes());
        return Linear(inFeatures, rows, arena.Add(codes), bias, alpha, codes.ByteLength + scales.ByteLength, KernelWeights.Of(layout.Format), scaleSlot,
            factors is null ? null : arena.Add(new ValueSource(factors, DType.Float32)));
    }

    /// <summary>Rows of a quantised matrix that are turned into <see cref="DType"/> together for a product of many rows.</summary>
    public int TileRows(int rows, int inFeatures) => TileRows(rows, inFeatures, type, scratchBytes);

    /// <inheritdoc cref="TileRows(int, int)"/>
    public static int TileRows(int rows, int inFeatures, DType type, long scratchBytes)
    {
        int most = (int)Math.Max(1, scratchBytes / ((long)inFeatures * type.SizeInBytes()));
        return Math.Min(rows, most > 256 ? most / 256 * 256 : most);
    }

    private GpuLinear Linear(int inFeatures, int outFeatures, WeightArena.Slot matrix, float[]? bias, float alpha, long? byteLength = null, int form = KernelWeights.Stored,
        WeightArena.Slot? scales = null, WeightArena.Slot? factors = null)
    {
        WeightArena.Slot? wide = bias is null ? null : arena.Add(new ValueSource(bias, DType.Float32));
        WeightArena.Slot? stored = bias is null || type == DType.Float32 ? wide : arena.Add(new ValueSource(bias, type));
        return new GpuLinear(inFeatures, outFeatures, matrix, wide, stored, alpha, byteLength ?? (long)inFeatures * outFeatures * type.SizeInBytes())
        {
            Form = form,
            ScaleSlot = scales,
            FactorSlot = factors,
        };
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
