using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>Is told of every operation that a backend runs.</summary>
internal interface IOperationObserver
{
    /// <summary>Runs <paramref name="operation"/>, or does not when only its cost matters.</summary>
    void Observe(OperationCost cost, Action operation);

    /// <summary>The same for an operation that belongs to a whole step or to none; it contains others.</summary>
    void ObserveStep(PagedBatch batch, Action step);
}

/// <summary>A backend that tells an observer of every operation and passes it on. Steps are never replayed from a recording, so that their
/// operations are seen.</summary>
internal sealed class ObservedBackend(IBackend inner, IOperationObserver observer, bool ownsInner = true, bool tellsPlanned = false) : IBackend
{
    /// <summary>The backend behind an observed one, or the backend itself.</summary>
    public static IBackend Unwrap(IBackend backend) => backend is ObservedBackend observed ? observed.Inner : backend;

    /// <summary>The backend behind it.</summary>
    public IBackend Inner => inner;

    public string Name => inner.Name;

    public DType ActivationType => inner.ActivationType;

    public MemoryLedger Memory => inner.Memory;

    public long? AvailableBytes => inner.AvailableBytes;

    public ConvLlavaException? Fault => inner.Fault;

    public MemoryBlock Allocate(long bytes, MemoryOwner owner) => inner.Allocate(bytes, owner);

    public int PreferredTileRows(int columns) => inner.PreferredTileRows(columns);

    public int PaddedDecodeRows(int rows) => inner.PaddedDecodeRows(rows);

    public void ReserveSteps(StepLimits limits) => inner.ReserveSteps(limits);

    public LinearWeight LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias, WeightTensor? scale) => inner.LoadLinear(rowBlocks, bias, scale);

    public LinearWeight LoadPatchConvolution(WeightTensor weight, WeightTensor bias) => inner.LoadPatchConvolution(weight, bias);

    public NormWeight LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon) => inner.LoadNorm(weight, bias, epsilon);

    public DepthwiseWeight LoadDepthwise(WeightTensor filter, WeightTensor bias) => inner.LoadDepthwise(filter, bias);

    public EmbeddingTable LoadEmbedding(WeightTensor table) => inner.LoadEmbedding(table);

    public void CompleteLoading(Action<double>? progress, CancellationToken cancellation) => inner.CompleteLoading(progress, cancellation);

    public KvStorage CreateKvStorage(KvLayout layout) => inner.CreateKvStorage(layout);

    public void GatherPatches(ImageBatch images, int patch, Tensor output, Workspace workspace)
        => Tell(workspace, CostModel.GatherPatches(images, output), () => inner.GatherPatches(images, patch, output, workspace));

    public void LayerNorm(Tensor input, NormWeight norm, Tensor output)
        => observer.Observe(CostModel.LayerNorm(input), () => inner.LayerNorm(input, norm, output));

    public void DepthwiseConvNorm(Tensor input, Grid grid, DepthwiseWeight filter, NormWeight norm, Tensor output)
        => observer.Observe(CostModel.DepthwiseConvNorm(input, inner), () => inner.DepthwiseConvNorm(input, grid, filter, norm, output));

    public void NormGather(Tensor input, Grid grid, NormWeight norm, Tensor output)
        => observer.Observe(CostModel.NormGather(input, output), () => inner.NormGather(input, grid, norm, output));

    public void Linear(Tensor input, LinearWeight weight, Activation activation, Tensor output)
        => observer.Observe(CostModel.Linear(input, weight, activation, output, inner), () => inner.Linear(input, weight, activation, output));

    public void LinearResidual(Tensor input, LinearWeight weight, Tensor accumulator)
        => observer.Observe(CostModel.LinearResidual(input, weight, accumulator, inner), () => inner.LinearResidual(input, weight, accumulator));

    public void Copy(Tensor source, Tensor destination) => observer.Observe(CostModel.Copy(source), () => inner.Copy(source, destination));

    public unsafe void Read(Tensor source, Span<float> destination)
    {
        // A span cannot be captured; its memory stays where it is for as long as it is pinned.
        fixed (float* address = destination)
        {
            var pinned = (nint)address;
            int length = destination.Length;
            observer.Observe(CostModel.Read(source), () => inner.Read(source, new Span<float>((float*)pinned, length)));
        }
    }

    public void RunStep(PagedBatch batch, bool repeatable, Action forward, Action? after = null)
        => inner.RunStep(batch, false, () => observer.ObserveStep(batch, forward), after);

    public void ForgetSteps() => inner.ForgetSteps();

    public void EmbedTokens(EmbeddingTable table, PagedBatch batch, Tensor output)
        => observer.Observe(CostModel.EmbedTokens(table, output), () => inner.EmbedTokens(table, batch, output));

    public void NormQkvRope(Tensor input, NormWeight norm, LinearWeight qkv, RopeParameters rope, PagedBatch batch, KvStorage kv, int layer, Tensor query, Workspace workspace)
        => Tell(workspace, CostModel.NormQkvRope(input, qkv, rope, kv, query, inner), () => inner.NormQkvRope(input, norm, qkv, rope, batch, kv, layer, query, workspace));

    public void PagedAttention(Tensor query, PagedBatch batch, KvStorage kv, int layer, Tensor output, Workspace workspace)
        => Tell(workspace, CostModel.PagedAttention(query, batch, kv, inner), () => inner.PagedAttention(query, batch, kv, layer, output, workspace));

    public void NormGatedMlpResidual(Tensor hidden, NormWeight norm, LinearWeight gateUp, LinearWeight down, Workspace workspace)
        => Tell(workspace, CostModel.NormGatedMlpResidual(hidden, gateUp, down, inner), () => inner.NormGatedMlpResidual(hidden, norm, gateUp, down, workspace));

    public void NormLogits(Tensor hidden, PagedBatch batch, NormWeight norm, LinearWeight head, Tensor logits, Workspace workspace)
        => Tell(workspace, CostModel.NormLogits(hidden, batch, head, logits, inner), () => inner.NormLogits(hidden, batch, norm, head, logits, workspace));

    public void Sample(Tensor logits, PagedBatch batch, Workspace workspace)
        => Tell(workspace, CostModel.Sample(logits, batch), () => inner.Sample(logits, batch, workspace));

    public void CopyKvBlock(KvStorage kv, int source, int destination) => inner.CopyKvBlock(kv, source, destination);

    public void Dispose()
    {
        if (ownsInner) inner.Dispose();
    }

    /// <summary>An operation that is only being planned is passed on untold, unless plans are what is looked at.</summary>
    private void Tell(Workspace workspace, OperationCost cost, Action operation)
    {
        if (workspace.IsPlanning && !tellsPlanned) operation();
        else observer.Observe(cost, operation);
    }
}
