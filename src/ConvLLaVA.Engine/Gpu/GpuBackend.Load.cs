using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

public sealed partial class GpuBackend
{
    /// <inheritdoc/>
    public LinearWeight LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias = null, WeightTensor? scale = null)
    {
        GpuLinear linear = _binder.LoadLinear(rowBlocks, bias, scale);
        if (linear.Form != KernelWeights.Stored && _forms.Add(linear.Form))
        {
            _compiling = BuildAlso(_compiling, _shape.Quantised(linear.Form));
            _specs.AddRange(_shape.Quantised(linear.Form));
        }
        return linear;
    }

    private async Task<IReadOnlyList<byte[]>> BuildAlso(Task<IReadOnlyList<byte[]>> before, IReadOnlyList<KernelSpec> specs)
    {
        IReadOnlyList<byte[]> first = await before.ConfigureAwait(false);
        return [.. first, .. await Task.Run(() => _compiler.Build(specs, _abandoned.Token)).ConfigureAwait(false)];
    }

    /// <inheritdoc/>
    public LinearWeight LoadPatchConvolution(WeightTensor weight, WeightTensor bias) => _binder.LoadPatchConvolution(weight, bias);

    /// <inheritdoc/>
    public NormWeight LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon) => _binder.LoadNorm(weight, bias, epsilon);

    /// <inheritdoc/>
    public DepthwiseWeight LoadDepthwise(WeightTensor filter, WeightTensor bias) => _binder.LoadDepthwise(filter, bias);

    /// <inheritdoc/>
    public EmbeddingTable LoadEmbedding(WeightTensor table) => _binder.LoadEmbedding(table);

    /// <inheritdoc/>
    public void CompleteLoading(Action<string, double>? progress, CancellationToken cancellation)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        const double WeightsShare = 0.8; // kernels are compiled meanwhile; what is left of that follows
        _arena.Upload(progress is null ? null : done => progress("weights", WeightsShare * done), cancellation);
        IReadOnlyList<byte[]> code;
        try
        {
            while (!_compiling.Wait(TimeSpan.FromMilliseconds(50), cancellation)) progress?.Invoke("compiling kernels", WeightsShare + ((1 - WeightsShare) * _compiler.ShareDone));
            code = _compiling.Result;
        }
        catch (AggregateException error) when (error.InnerException is ConvLlavaException inner)
        {
            throw inner is InvalidInputException ? new InvalidInputException(inner.Message, inner) : new ConvLlavaException(inner.Message, inner);
        }
        _stream.Enter();
        _kernels = new GpuKernels(_stream, _shape, _specs, code, _forms, _compiler.Rebuild);
    }
}
