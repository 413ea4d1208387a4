using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

public sealed partial class GpuBackend
{
    /// <inheritdoc/>
    public LinearWeight LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias = null, WeightTensor? scale = null)
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
        return Linear(inFeatures, rows, _arena.Add(new ScaledSource(rowBlocks[0], factors, _options.Type)), biases, alpha);
    }

    /// <inheritdoc/>
    public LinearWeight LoadPatchConvolution(WeightTensor weight, WeightTensor bias)
    {
        WeightSource.Require(weight, weight.Shape.Length == 4 && weight.Shape[2] == weight.Shape[3] && weight.DType.IsFloating(), "[out, in, k, k]");
        int rows = checked((int)weight.Shape[0]);
        WeightSource.Require(bias, bias.ElementCount == rows && bias.DType.IsFloating(), $"[{rows}]");
        var source = new PatchSource(weight, _options.Type);
        return Linear(source.Row, rows, _arena.Add(source), TensorConversion.ToFloat32(bias), 1);
    }

    /// <inheritdoc/>
    public NormWeight LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon)
    {
        WeightSource.Require(weight, weight.Shape.Length == 1 && weight.DType.IsFloating(), "[features]");
        if (bias is not null) WeightSource.Require(bias, bias.ElementCount == weight.ElementCount && bias.DType.IsFloating(), $"[{weight.ElementCount}]");
        return new GpuNorm(checked((int)weight.ElementCount), epsilon, _arena.Add(new PlainSource([weight], DType.Float32)),
            bias is null ? null : _arena.Add(new PlainSource([bias], DType.Float32)));
    }

    /// <inheritdoc/>
    public DepthwiseWeight LoadDepthwise(WeightTensor filter, WeightTensor bias)
    {
        WeightSource.Require(filter, filter.Shape.Length == 4 && filter.Shape[1] == 1 && filter.Shape[2] == 7 && filter.Shape[3] == 7 && filter.DType.IsFloating(), "[channels, 1, 7, 7]");
        int channels = checked((int)filter.Shape[0]);
        WeightSource.Require(bias, bias.ElementCount == channels && bias.DType.IsFloating(), $"[{channels}]");
        return new GpuDepthwise(channels, _arena.Add(new DepthwiseSource(filter, _options.Type)), _arena.Add(new PlainSource([bias], DType.Float32)));
    }

    /// <inheritdoc/>
    public EmbeddingTable LoadEmbedding(WeightTensor table)
    {
        WeightSource.Require(table, table.Shape.Length == 2 && table.DType.IsFloating(), "[vocab_size, hidden_size]");
        return new GpuEmbedding(checked((int)table.Shape[0]), checked((int)table.Shape[1]), _arena.AddShared(table, _options.Type));
    }

    /// <inheritdoc/>
    public void CompleteLoading(Action<double>? progress, CancellationToken cancellation)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        _arena.Upload(progress, cancellation);
        IReadOnlyList<byte[]> code;
        try
        {
            _compiling.Wait(cancellation);
            code = _compiling.Result;
        }
        catch (AggregateException error) when (error.InnerException is ConvLlavaException inner)
        {
            throw inner is InvalidInputException ? new InvalidInputException(inner.Message, inner) : new ConvLlavaException(inner.Message, inner);
        }
        _stream.Enter();
        _kernels = new GpuKernels(_stream, _shape, _shape.All(), code);
    }

    private WeightArena.Slot Matrix(IReadOnlyList<WeightTensor> rowBlocks)
        => rowBlocks.Count == 1 ? _arena.AddShared(rowBlocks[0], _options.Type) : _arena.Add(new PlainSource([.. rowBlocks], _options.Type));

    private GpuLinear Linear(int inFeatures, int outFeatures, WeightArena.Slot matrix, float[]? bias, float alpha)
    {
        WeightArena.Slot? wide = bias is null ? null : _arena.Add(new ValueSource(bias, DType.Float32));
        WeightArena.Slot? stored = bias is null || _options.Type == DType.Float32 ? wide : _arena.Add(new ValueSource(bias, _options.Type));
        return new GpuLinear(inFeatures, outFeatures, matrix, wide, stored, alpha);
    }

    /// <summary>The power of two that is left out of a layer scale folded into fp16 weights, so that the largest factor becomes 8 to 16:
    /// scales can be as small as 1e-6, and the products would vanish. The matrix product multiplies it back in fp32. Other types
    /// have the range.</summary>
    private float RangeFactor(float[] factors)
    {
        if (_options.Type != DType.Float16) return 1;
        float largest = 0;
        foreach (float factor in factors) largest = Math.Max(largest, Math.Abs(factor));
        return largest is > 0 and < 8 ? MathF.ScaleB(1, Math.ILogB(largest) - 3) : 1;
    }
}
