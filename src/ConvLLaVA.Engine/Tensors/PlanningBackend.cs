namespace ConvLLaVA.Engine.Tensors;

/// <summary>Runs a forward pass without computing, so that a planning <see cref="Workspace"/> sees everything the pass takes.
/// Operations without scratch do nothing; those with scratch are asked of the real backend, which takes it and returns.</summary>
internal sealed class PlanningBackend(IBackend inner) : IBackend
{
    public string Name => inner.Name;

    public DType ActivationType => inner.ActivationType;

    public MemoryLedger Memory => inner.Memory;

    public long? AvailableBytes => inner.AvailableBytes;

    public ConvLlavaException? Fault => inner.Fault;

    public MemoryBlock Allocate(long bytes, MemoryOwner owner) => throw Unplannable();

    public int PreferredTileRows(int columns) => inner.PreferredTileRows(columns);

    public int PaddedDecodeRows(int rows) => inner.PaddedDecodeRows(rows);

    public void ReserveSteps(StepLimits limits) => throw Unplannable();

    public LinearWeight LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias, WeightTensor? scale) => throw Unplannable();

    public LinearWeight LoadPatchConvolution(WeightTensor weight, WeightTensor bias) => throw Unplannable();

    public NormWeight LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon) => throw Unplannable();

    public DepthwiseWeight LoadDepthwise(WeightTensor filter, WeightTensor bias) => throw Unplannable();

    public EmbeddingTable LoadEmbedding(WeightTensor table) => throw Unplannable();

    public void CompleteLoading(Action<double>? progress, CancellationToken cancellation) => throw Unplannable();

    public KvStorage CreateKvStorage(KvLayout layout) => throw Unplannable();

    public void GatherPatches(ImageBatch images, int patch, Tensor output, Workspace workspace)
        => inner.GatherPatches(images, patch, output, Planning(workspace));

    public void LayerNorm(Tensor input, NormWeight norm, Tensor output) { }

    public void DepthwiseConvNorm(Tensor input, Grid grid, DepthwiseWeight filter, NormWeight norm, Tensor output) { }

    public void NormGather(Tensor input, Grid grid, NormWeight norm, Tensor output) { }

    public void Linear(Tensor input, LinearWeight weight, Activation activation, Tensor output) { }

    public void LinearResidual(Tensor input, LinearWeight weight, Tensor accumulator) { }

    public void Copy(Tensor source, Tensor destination) { }

    public void Read(Tensor source, Span<float> destination) => throw Unplannable();

    public void RunStep(PagedBatch batch, bool repeatable, Action forward) => forward();

    public void EmbedTokens(EmbeddingTable table, PagedBatch batch, Tensor output) { }

    public void NormQkvRope(Tensor input, NormWeight norm, LinearWeight qkv, RopeParameters rope, PagedBatch batch, KvStorage kv, int layer, Tensor query, Workspace workspace)
        => inner.NormQkvRope(input, norm, qkv, rope, batch, kv, layer, query, Planning(workspace));

    public void PagedAttention(Tensor query, PagedBatch batch, KvStorage kv, int layer, Tensor output, Workspace workspace)
        => inner.PagedAttention(query, batch, kv, layer, output, Planning(workspace));

    public void NormGatedMlpResidual(Tensor hidden, NormWeight norm, LinearWeight gateUp, LinearWeight down, Workspace workspace)
        => inner.NormGatedMlpResidual(hidden, norm, gateUp, down, Planning(workspace));

    public void NormLogits(Tensor hidden, PagedBatch batch, NormWeight norm, LinearWeight head, Tensor logits, Workspace workspace)
        => inner.NormLogits(hidden, batch, norm, head, logits, Planning(workspace));

    public void CopyKvBlock(KvStorage kv, int source, int destination) { }

    /// <summary>Nothing to give back: the real backend is somebody else's.</summary>
    public void Dispose() { }

    private static Workspace Planning(Workspace workspace) => workspace.IsPlanning
        ? workspace
        : throw new InvalidOperationException("Planning needs a workspace without memory.");

    private static InvalidOperationException Unplannable() => new("A forward pass neither loads weights nor reads results.");
}
