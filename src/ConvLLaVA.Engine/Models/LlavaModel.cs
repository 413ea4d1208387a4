using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Models;

/// <summary>The three networks of a checkpoint on one backend, and the sizes that follow from them. It owns the weights'
/// bindings, not the backend and not the checkpoint.</summary>
internal sealed class LlavaModel
{
    private readonly IBackend _backend;

    /// <summary>Binds all weights of <paramref name="checkpoint"/>.</summary>
    /// <param name="backend">Where the model will run.</param>
    /// <param name="checkpoint">Open checkpoint; must outlive the model.</param>
    /// <param name="weights">Looks a tensor up by its full name, converted when the caller asked for another precision.</param>
    /// <param name="visionWeights">The same for the tower's own names.</param>
    /// <param name="progress">Told of each stage and its share of the work, or null.</param>
    /// <param name="bindingShare">Where in <paramref name="progress"/> binding ends: it is next to nothing, or all of the work.</param>
    /// <param name="cancellation">Ends loading early.</param>
    public LlavaModel(IBackend backend, Checkpoint checkpoint, Func<string, WeightTensor> weights, Func<string, WeightTensor> visionWeights, IProgress<LoadProgress>? progress = null,
        double bindingShare = 0.3, CancellationToken cancellation = default)
    {
        _backend = backend;
        LlavaConfig config = checkpoint.Config;
        Config = config;
        VisionConfig = checkpoint.Vision;
        progress?.Report(new LoadProgress("vision tower", 0.05));
        Vision = new ConvNeXt(backend, VisionConfig.PatchSize, VisionConfig.Depths, visionWeights);
        Projector = new Projector(backend, config.MmProjectorType, config.MmProjectorLayers, weights);
        Language = new Llama(backend, config.NumHiddenLayers, config.NumAttentionHeads,
            new RopeParameters(config.HeadDim, config.RopeTheta, config.RopeScalingFactor), (float)config.RmsNormEps, weights,
            layers => progress?.Report(new LoadProgress("language model", 0.2 + ((bindingShare - 0.2) * layers / config.NumHiddenLayers))));
        backend.CompleteLoading(progress is null ? null : done => progress.Report(new LoadProgress("weights", bindingShare + ((0.95 - bindingShare) * done))), cancellation);
    }

    /// <summary>Sizes of the language model and the <c>mm_*</c> fields.</summary>
    public LlavaConfig Config { get; }

    /// <summary>Sizes of the vision tower.</summary>
    public VisionConfig VisionConfig { get; }

    /// <summary>The vision tower.</summary>
    public ConvNeXt Vision { get; }

    /// <summary>The projector.</summary>
    public Projector Projector { get; }

    /// <summary>The language model.</summary>
    public Llama Language { get; }

    /// <summary>Visual tokens of a tile of the given size: every strided convolution floors.</summary>
    public int TokensPerTile(int height, int width) => TokensPerTile(VisionConfig, height, width);

    /// <inheritdoc cref="TokensPerTile(int, int)"/>
    public static int TokensPerTile(VisionConfig vision, int height, int width) => (height / vision.TotalStride) * (width / vision.TotalStride);

    /// <summary>Encodes and projects every tile into <paramref name="output"/> <c>[images.Tokens, hidden_size]</c>.</summary>
    public void EncodeImages(PreparedImages images, Tensor output, Workspace workspace, CancellationToken cancellation)
    {
        for (int tile = 0; tile < images.Tiles.Count; tile++)
        {
            using var scope = workspace.Open();
            (Tensor features, Grid grid) = Vision.Forward(_backend, images.Batch(tile), workspace, cancellation: cancellation);
            Projector.Forward(_backend, features, output.Slice(tile * grid.Rows, grid.Rows), workspace);
        }
    }

    /// <summary>Runs one step of the language model: embeds its tokens (vocabulary rows, and for negative ids -1 - r row r of the
    /// sequence's image features), runs all layers and computes the logits of the wanted rows.</summary>
    /// <param name="backend">The real backend or a planning one.</param>
    /// <param name="batch">The step.</param>
    /// <param name="features">Projected features of each sequence's request, or nothing when no id is negative. [sequences]</param>
    /// <param name="kv">Pages.</param>
    /// <param name="hidden">Receives the hidden state. [tokens, hidden_size]</param>
    /// <param name="logits">Receives the logits, Float32. [LogitCount, vocab_size]</param>
    /// <param name="workspace">Takes the activations from here.</param>
    public void Step(IBackend backend, PagedBatch batch, ReadOnlySpan<Tensor> features, KvStorage kv, Tensor hidden, Tensor logits, Workspace workspace)
    {
        Embed(backend, batch, features, hidden);
        Language.Forward(backend, hidden, batch, kv, workspace);
        if (batch.LogitCount > 0) Language.Logits(backend, hidden, batch, logits, workspace);
    }

    /// <summary>The first part of <see cref="Step"/>. hidden <c>[tokens, hidden_size]</c>.</summary>
    public void Embed(IBackend backend, PagedBatch batch, ReadOnlySpan<Tensor> features, Tensor hidden)
    {
        Language.Embed(backend, batch, hidden);
        if (features.IsEmpty) return;
        int[] ids = batch.TokenIds;
        for (int s = 0; s < batch.SequenceCount; s++)
        {
            int last = batch.QueryStarts[s + 1];
            for (int start = batch.QueryStarts[s]; start < last; start++)
            {
                if (ids[start] >= 0) continue;
                int end = start + 1;
                while (end < last && ids[end] == ids[start] - (end - start)) end++; // consecutive feature rows
                backend.Copy(features[s].Slice(-1 - ids[start], end - start), hidden.Slice(start, end - start));
                start = end - 1;
            }
        }
    }

    /// <summary>Workspace bytes for the largest step: one tile of the given size through the tower, or
    /// <paramref name="tokens"/> tokens with <paramref name="logitRows"/> rows of logits through the language model.</summary>
    public long PlanWorkspace(int tileHeight, int tileWidth, int tokens, int logitRows)
    {
        var planning = new PlanningBackend(_backend);
        using var workspace = Workspace.ForPlanning(_backend.ActivationType);
        using (workspace.Open())
        {
            (Tensor features, _) = Vision.Forward(planning, new ImageBatch([[]], tileHeight, tileWidth, []), workspace);
            Projector.Forward(planning, features, default, workspace);
        }
        using (workspace.Open())
        {
            PlanStep(planning, workspace, tokens, logitRows);
        }
        return workspace.HighWaterMark;
    }

    private void PlanStep(PlanningBackend planning, Workspace workspace, int tokens, int logitRows)
    {
        Tensor hidden = workspace.Take(tokens, Language.HiddenSize);
        Tensor logits = workspace.Take(logitRows, Language.VocabularySize, DType.Float32);
        var batch = new PagedBatch { TokenCount = tokens, SequenceCount = logitRows, LogitCount = logitRows, MaxBlocks = BlocksPerSequence(16) };
        Step(planning, batch, [], NoPages(), hidden, logits, workspace);
        planning.Sample(logits, batch, workspace);
    }

    /// <summary>The layout of a KV cache with room for <paramref name="tokens"/>, and page 0 besides.</summary>
    public KvLayout KvLayoutFor(int tokens, int blockSize)
        => new(Config.NumHiddenLayers, ((tokens + blockSize - 1) / blockSize) + 1, blockSize, Config.NumKeyValueHeads, Config.HeadDim);

    /// <summary>Pages of a sequence that fills the context.</summary>
    public int BlocksPerSequence(int blockSize) => (Config.MaxPositionEmbeddings / blockSize) + 1;

    private PlannedPages NoPages() => new(KvLayoutFor(0, 16));

    /// <summary>Pages without memory: a planned step reads their shape only.</summary>
    private sealed class PlannedPages(KvLayout layout) : KvStorage(layout, 0)
    {
        public override void Dispose() { }
    }
}
