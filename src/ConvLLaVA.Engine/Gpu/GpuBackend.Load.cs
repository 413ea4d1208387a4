using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

public sealed partial class GpuBackend
{
    /// <inheritdoc/>
    public LinearWeight LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias = null, WeightTensor? scale = null) => _binder.LoadLinear(rowBlocks, bias, scale);

    /// <inheritdoc/>
    public LinearWeight LoadPatchConvolution(WeightTensor weight, WeightTensor bias) => _binder.LoadPatchConvolution(weight, bias);

    /// <inheritdoc/>
    public NormWeight LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon) => _binder.LoadNorm(weight, bias, epsilon);

    /// <inheritdoc/>
    public DepthwiseWeight LoadDepthwise(WeightTensor filter, WeightTensor bias) => _binder.LoadDepthwise(filter, bias);

    /// <inheritdoc/>
    public EmbeddingTable LoadEmbedding(WeightTensor table) => _binder.LoadEmbedding(table);

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
        _kernels = new GpuKernels(_stream, _shape, _shape.All(), code, _compiler.Rebuild);
    }
}
