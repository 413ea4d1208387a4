namespace ConvLLaVA.Engine.Tensors;

/// <summary>Runs a forward pass without computing, so that a planning <see cref="Workspace"/> sees everything the pass takes: operations
/// with scratch are asked of the real backend, which takes it and returns. The real backend is somebody else's.</summary>
internal sealed class PlanningBackend(IBackend inner) : SizingBackend
{
    public override string Name => inner.Name;

    public override DType ActivationType => inner.ActivationType;

    public override MemoryLedger Memory => inner.Memory;

    public override long? AvailableBytes => inner.AvailableBytes;

    public override ConvLlavaException? Fault => inner.Fault;

    public override int PreferredTileRows(int columns) => inner.PreferredTileRows(columns);

    public override int PaddedDecodeRows(int rows) => inner.PaddedDecodeRows(rows);

    public override void GatherPatches(ImageBatch images, int patch, Tensor output, Workspace workspace)
        => inner.GatherPatches(images, patch, output, Planning(workspace));

    public override void NormQkvRope(Tensor input, NormWeight norm, LinearWeight qkv, RopeParameters rope, PagedBatch batch, KvStorage kv, int layer, Tensor query, Workspace workspace)
        => inner.NormQkvRope(input, norm, qkv, rope, batch, kv, layer, query, Planning(workspace));

    public override void PagedAttention(Tensor query, PagedBatch batch, KvStorage kv, int layer, Tensor output, Workspace workspace)
        => inner.PagedAttention(query, batch, kv, layer, output, Planning(workspace));

    public override void NormGatedMlpResidual(Tensor hidden, NormWeight norm, LinearWeight gateUp, LinearWeight down, Workspace workspace)
        => inner.NormGatedMlpResidual(hidden, norm, gateUp, down, Planning(workspace));

    public override void NormLogits(Tensor hidden, PagedBatch batch, NormWeight norm, LinearWeight head, Tensor logits, Workspace workspace)
        => inner.NormLogits(hidden, batch, norm, head, logits, Planning(workspace));

    public override void Sample(Tensor logits, PagedBatch batch, Workspace workspace) => inner.Sample(logits, batch, Planning(workspace));

    private static Workspace Planning(Workspace workspace) => workspace.IsPlanning
        ? workspace
        : throw new InvalidOperationException("Planning needs a workspace without memory.");
}
