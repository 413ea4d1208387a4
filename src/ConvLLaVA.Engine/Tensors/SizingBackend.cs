namespace ConvLLaVA.Engine.Tensors;

/// <summary>A backend that computes nothing: what stands in for a real one while only sizes are wanted. Operations without scratch do
/// nothing; those with scratch are the derived class's, which takes it from a planning workspace.</summary>
internal abstract class SizingBackend : IBackend
{
    public abstract string Name { get; }

    public abstract DType ActivationType { get; }

    public virtual MemoryLedger Memory { get; } = new();

    public virtual long? AvailableBytes => null;

    public virtual ConvLlavaException? Fault => null;

    public MemoryBlock Allocate(long bytes, MemoryOwner owner) => throw Unplannable();

    public abstract int PreferredTileRows(int columns);

    public abstract int PaddedDecodeRows(int rows);

    public void ReserveSteps(StepLimits limits) => throw Unplannable();

    public virtual LinearWeight LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias = null, WeightTensor? scale = null) => throw Unplannable();

    public virtual LinearWeight LoadPatchConvolution(WeightTensor weight, WeightTensor bias) => throw Unplannable();

    public virtual NormWeight LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon) => throw Unplannable();

    public virtual DepthwiseWeight LoadDepthwise(WeightTensor filter, WeightTensor bias) => throw Unplannable();

    public virtual EmbeddingTable LoadEmbedding(WeightTensor table) => throw Unplannable();

    public virtual void CompleteLoading(Action<double>? progress, CancellationToken cancellation) => throw Unplannable();

    public KvStorage CreateKvStorage(KvLayout layout) => throw Unplannable();

    public abstract void GatherPatches(ImageBatch images, int patch, Tensor output, Workspace workspace);

    public void LayerNorm(Tensor input, NormWeight norm, Tensor output) { }

    public void DepthwiseConvNorm(Tensor input, Grid grid, DepthwiseWeight filter, NormWeight norm, Tensor output) { }

    public void NormGather(Tensor input, Grid grid, NormWeight norm, Tensor output) { }

    public void Linear(Tensor input, LinearWeight weight, Activation activation, Tensor output) { }

    public void LinearResidual(Tensor input, LinearWeight weight, Tensor accumulator) { }

    public void Copy(Tensor source, Tensor destination) { }

    public void Read(Tensor source, Span<float> destination) => throw Unplannable();

    public void RunStep(PagedBatch batch, bool repeatable, Action forward, Action? after = null)
    {
        forward();
        after?.Invoke();
    }

    public void EmbedTokens(EmbeddingTable table, PagedBatch batch, Tensor output) { }

    public abstract void NormQkvRope(Tensor input, NormWeight norm, LinearWeight qkv, RopeParameters rope, PagedBatch batch, KvStorage kv, int layer, Tensor query, Workspace workspace);

    public abstract void PagedAttention(Tensor query, PagedBatch batch, KvStorage kv, int layer, Tensor output, Workspace workspace);

    public abstract void NormGatedMlpResidual(Tensor hidden, NormWeight norm, LinearWeight gateUp, LinearWeight down, Workspace workspace);

    public abstract void NormLogits(Tensor hidden, PagedBatch batch, NormWeight norm, LinearWeight head, Tensor logits, Workspace workspace);

    public abstract void Sample(Tensor logits, PagedBatch batch, Workspace workspace);

    public void CopyKvBlock(KvStorage kv, int source, int destination) { }

    /// <summary>Nothing to give back.</summary>
    public void Dispose() { }

    private static InvalidOperationException Unplannable() => new("A forward pass that is only planned has no device: it neither loads weights nor reads results.");
}
