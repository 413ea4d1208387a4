using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Stands in for <see cref="GpuBackend"/> where there is no GPU and only sizes are wanted: binds weights without reading them and
/// takes from a planning workspace what the real one would.</summary>
internal sealed class GpuPlanner : IBackend
{
    private readonly KernelShape _shape;
    private readonly WeightArena _arena = new(null!, null!);
    private readonly WeightBinder _binder;

    /// <summary>Plans for kernels of <paramref name="shape"/>.</summary>
    public GpuPlanner(KernelShape shape)
    {
        _shape = shape;
        _binder = new WeightBinder(_arena, shape.Type);
    }

    /// <summary>Bytes of all weights that were bound.</summary>
    public long WeightBytes => _arena.ByteLength;

    public string Name => "cuda (planned)";

    public DType ActivationType => _shape.Type;

    public MemoryLedger Memory { get; } = new();

    public long? AvailableBytes => null;

    public ConvLlavaException? Fault => null;

    public MemoryBlock Allocate(long bytes, MemoryOwner owner) => throw NoDevice();

    public int PreferredTileRows(int columns) => GpuScratch.PreferredTileRows(columns, _shape.Type);

    public int PaddedDecodeRows(int rows) => GpuScratch.PaddedDecodeRows(rows);

    public void ReserveSteps(StepLimits limits) { }

    public LinearWeight LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias = null, WeightTensor? scale = null) => _binder.LoadLinear(rowBlocks, bias, scale);

    public LinearWeight LoadPatchConvolution(WeightTensor weight, WeightTensor bias) => _binder.LoadPatchConvolution(weight, bias);

    public NormWeight LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon) => _binder.LoadNorm(weight, bias, epsilon);

    public DepthwiseWeight LoadDepthwise(WeightTensor filter, WeightTensor bias) => _binder.LoadDepthwise(filter, bias);

    public EmbeddingTable LoadEmbedding(WeightTensor table) => _binder.LoadEmbedding(table);

    public void CompleteLoading(Action<double>? progress, CancellationToken cancellation) { }

    public KvStorage CreateKvStorage(KvLayout layout) => throw NoDevice();

    public void GatherPatches(ImageBatch images, int patch, Tensor output, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.Patches(workspace, images);
    }

    public void LayerNorm(Tensor input, NormWeight norm, Tensor output) { }

    public void DepthwiseConvNorm(Tensor input, Grid grid, DepthwiseWeight filter, NormWeight norm, Tensor output) { }

    public void NormGather(Tensor input, Grid grid, NormWeight norm, Tensor output) { }

    public void Linear(Tensor input, LinearWeight weight, Activation activation, Tensor output) { }

    public void LinearResidual(Tensor input, LinearWeight weight, Tensor accumulator) { }

    public void Copy(Tensor source, Tensor destination) { }

    public void Read(Tensor source, Span<float> destination) => throw NoDevice();

    public void RunStep(PagedBatch batch, bool repeatable, Action forward) => forward();

    public void EmbedTokens(EmbeddingTable table, PagedBatch batch, Tensor output) { }

    public void NormQkvRope(Tensor input, NormWeight norm, LinearWeight qkv, RopeParameters rope, PagedBatch batch, KvStorage kv, int layer, Tensor query, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.Qkv(workspace, input, qkv);
    }

    public void PagedAttention(Tensor query, PagedBatch batch, KvStorage kv, int layer, Tensor output, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.PlanAttention(workspace, _shape, batch);
    }

    public void NormGatedMlpResidual(Tensor hidden, NormWeight norm, LinearWeight gateUp, LinearWeight down, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.Mlp(workspace, hidden, down.InFeatures);
    }

    public void NormLogits(Tensor hidden, PagedBatch batch, NormWeight norm, LinearWeight head, Tensor logits, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.Logits(workspace, hidden, batch.LogitCount);
    }

    public void CopyKvBlock(KvStorage kv, int source, int destination) => throw NoDevice();

    public void Dispose() { }

    private static InvalidOperationException NoDevice() => new("A planner has no device.");
}
