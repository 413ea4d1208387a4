using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Stands in for <see cref="GpuBackend"/> where there is no GPU and only sizes are wanted: binds weights without reading them and
/// takes from a planning workspace what the real one would.</summary>
internal sealed class GpuPlanner : SizingBackend
{
    private readonly KernelShape _shape;
    private readonly WeightArena _arena = new(null!, null!);
    private readonly WeightBinder _binder;
    private readonly SortedSet<int> _forms = [];

    /// <summary>Plans for kernels of <paramref name="shape"/>.</summary>
    public GpuPlanner(KernelShape shape)
    {
        _shape = shape;
        _binder = new WeightBinder(_arena, shape.Type);
    }

    /// <summary>Bytes of all weights that were bound.</summary>
    public long WeightBytes => _arena.ByteLength;

    /// <summary>Forms of quantised weights among them, of <see cref="KernelWeights"/>.</summary>
    public IReadOnlyCollection<int> Forms => _forms;

    public override string Name => "cuda (planned)";

    public override DType ActivationType => _shape.Type;

    public override int PreferredTileRows(int columns) => GpuScratch.PreferredTileRows(columns, _shape.Type);

    public override int PaddedDecodeRows(int rows) => GpuScratch.PaddedDecodeRows(rows);

    public override LinearWeight LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias = null, WeightTensor? scale = null)
    {
        GpuLinear linear = _binder.LoadLinear(rowBlocks, bias, scale);
        if (linear.Form != KernelWeights.Stored) _forms.Add(linear.Form);
        return linear;
    }

    public override LinearWeight LoadPatchConvolution(WeightTensor weight, WeightTensor bias) => _binder.LoadPatchConvolution(weight, bias);

    public override NormWeight LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon) => _binder.LoadNorm(weight, bias, epsilon);

    public override DepthwiseWeight LoadDepthwise(WeightTensor filter, WeightTensor bias) => _binder.LoadDepthwise(filter, bias);

    public override EmbeddingTable LoadEmbedding(WeightTensor table) => _binder.LoadEmbedding(table);

    public override void CompleteLoading(Action<string, double>? progress, CancellationToken cancellation) { }

    public override void GatherPatches(ImageBatch images, int patch, Tensor output, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.Patches(workspace, images);
    }

    public override void NormQkvRope(Tensor input, NormWeight norm, LinearWeight qkv, RopeParameters rope, PagedBatch batch, KvStorage kv, int layer, Tensor query, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.Qkv(workspace, input, qkv);
    }

    public override void PagedAttention(Tensor query, PagedBatch batch, KvStorage kv, int layer, Tensor output, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.PlanAttention(workspace, _shape, batch);
    }

    public override void NormGatedMlpResidual(Tensor hidden, NormWeight norm, LinearWeight gateUp, LinearWeight down, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.Mlp(workspace, hidden, down.InFeatures);
    }

    public override void NormLogits(Tensor hidden, PagedBatch batch, NormWeight norm, LinearWeight head, Tensor logits, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.Logits(workspace, hidden, batch.LogitCount);
    }

    public override void Sample(Tensor logits, PagedBatch batch, Workspace workspace)
    {
        using Workspace.Scope scope = workspace.Open();
        GpuScratch.Sampling(workspace, logits.Rows, logits.Columns);
    }
}
