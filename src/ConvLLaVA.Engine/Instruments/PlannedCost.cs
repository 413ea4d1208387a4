using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>What a model's work costs on a GPU, operation by operation, found without a device and without weights.</summary>
internal static class PlannedCost
{
    /// <summary>One picture, or several at once, through tower and projector.</summary>
    public static OperationCost Encoding(string model, DType type, int batch) => Sum(EncodingOperations(model, type, batch));

    /// <summary>A prompt of so many tokens.</summary>
    public static OperationCost Prefilling(string model, DType type, int tokens) => Sum(StepOperations(model, type, [new SequencePiece(0, tokens)]));

    /// <summary>The next token of so many sequences with <paramref name="context"/> tokens each.</summary>
    public static OperationCost Decoding(string model, DType type, int context, int sequences)
        => Sum(StepOperations(model, type, [.. Enumerable.Repeat(new SequencePiece(context, 1), sequences)]));

    /// <summary>The operations of <see cref="Encoding"/>.</summary>
    public static IReadOnlyList<OperationCost> EncodingOperations(string model, DType type, int batch, QuantOptions? quantize = null) => Plan(model, type, quantize, (networks, backend, workspace, size) =>
    {
        (Tensor features, _) = networks.Vision.Forward(backend, new ImageBatch([.. Enumerable.Repeat(Array.Empty<byte>(), batch)], size, size, []), workspace);
        networks.Projector.Forward(backend, features, workspace.Take(features.Rows, networks.Language.HiddenSize), workspace);
    });

    /// <summary>The operations of a step.</summary>
    public static IReadOnlyList<OperationCost> StepOperations(string model, DType type, IReadOnlyList<SequencePiece> pieces, QuantOptions? quantize = null) => Plan(model, type, quantize, (networks, backend, workspace, _) =>
    {
        int pages = (pieces.Max(piece => piece.Start + piece.Count) + ModelRunner.BlockSize - 1) / ModelRunner.BlockSize;
        PagedBatch batch = InstrumentBackend.StepOf(pieces, ModelRunner.BlockSize, pages);
        Tensor hidden = workspace.Take(batch.TokenCount, networks.Language.HiddenSize), logits = workspace.Take(batch.LogitCount, networks.Language.VocabularySize, DType.Float32);
        networks.Step(backend, batch, [], new NoPages(networks.KvLayoutFor(pages * ModelRunner.BlockSize, ModelRunner.BlockSize)), hidden, logits, workspace);
    });

    /// <summary>Visual tokens of a picture, positions and width of the decoder.</summary>
    public static (int ImageTokens, int Positions, int HiddenSize) Sizes(string model)
    {
        using Checkpoint checkpoint = Checkpoint.Open(model);
        (int height, int width) = PromptBuilder.TileSize(checkpoint.Preprocessor);
        return (LlavaModel.TokensPerTile(checkpoint.Vision, height, width), checkpoint.Config.MaxPositionEmbeddings, checkpoint.Config.HiddenSize);
    }

    /// <summary>The forms, of <see cref="KernelWeights"/>, that the weights of a model have on a GPU besides the plain one.</summary>
    /// <param name="checkpoint">The model, which may be a quantised one.</param>
    /// <param name="type">Storage type.</param>
    /// <param name="quantize">What is quantised while loading, or null.</param>
    public static IReadOnlyCollection<int> Forms(Checkpoint checkpoint, DType type, QuantOptions? quantize)
    {
        using GpuPlanner planner = PlannerFor(checkpoint.Config, type);
        Networks(planner, checkpoint, quantize);
        return planner.Forms;
    }

    private static GpuPlanner PlannerFor(LlavaConfig config, DType type)
        => new(new KernelShape(type, config.HeadDim, config.NumAttentionHeads, config.NumKeyValueHeads, ModelRunner.BlockSize, 16, false, 90));

    /// <summary>The networks with their weights' shapes and forms: a planner asks for no bytes, so nothing is quantised.</summary>
    private static LlavaModel Networks(GpuPlanner planner, Checkpoint checkpoint, QuantOptions? quantize)
    {
        if (quantize is null) return new LlavaModel(planner, checkpoint, checkpoint.Get, checkpoint.GetVision);
        var quantizer = new WeightQuantizer(quantize, 1, CancellationToken.None);
        return new LlavaModel(planner, checkpoint, name => quantizer.Language(name, checkpoint.Get(name)), name => quantizer.Vision(name, checkpoint.GetVision(name)));
    }

    private static IReadOnlyList<OperationCost> Plan(string model, DType type, QuantOptions? quantize, Action<LlavaModel, IBackend, Workspace, int> work)
    {
        using Checkpoint checkpoint = Checkpoint.Open(model, new CheckpointOptions { SyntheticType = type });
        using GpuPlanner planner = PlannerFor(checkpoint.Config, type);
        LlavaModel networks = Networks(planner, checkpoint, quantize);
        var list = new Listing();
        using var observed = new ObservedBackend(new PlanningBackend(planner), list, tellsPlanned: true);
        using var workspace = Workspace.ForPlanning(type);
        work(networks, observed, workspace, checkpoint.Preprocessor.CropSize.Height);
        return list.Costs;
    }

    private static OperationCost Sum(IReadOnlyList<OperationCost> costs) => new("", costs.Sum(cost => cost.Bytes), costs.Sum(cost => cost.Flops));

    private sealed class Listing : IOperationObserver
    {
        public List<OperationCost> Costs { get; } = [];

        public void Observe(OperationCost cost, Action operation)
        {
            Costs.Add(cost);
            operation();
        }

        public void ObserveStep(PagedBatch batch, Action step) => step();
    }

    private sealed class NoPages(KvLayout layout) : KvStorage(layout, 0)
    {
        public override void Dispose() { }
    }
}
