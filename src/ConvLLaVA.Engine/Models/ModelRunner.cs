using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Models;

/// <summary>Executes what the scheduler plans: encodes pictures, runs mixed steps through the language model, copies pages.
/// Owns the workspace and the KV pages, both sized once at load.</summary>
internal sealed class ModelRunner : IModelRunner, IDisposable
{
    private const int BlockSize = 16;
    private const long DefaultKvBytes = 2L << 30;
    private const int MostContexts = 16;
    private readonly LlavaModel _model;
    private readonly IBackend _backend;
    private readonly Workspace _workspace;
    private readonly KvStorage _kv;
    private readonly Lock _gate = new();

    /// <summary>Plans and allocates.</summary>
    /// <param name="model">The bound model.</param>
    /// <param name="backend">Its backend.</param>
    /// <param name="tileHeight">Rows of a picture as the tower sees it.</param>
    /// <param name="tileWidth">Columns of it.</param>
    /// <param name="options">Step size, number of sequences, room for keys and values.</param>
    public ModelRunner(LlavaModel model, IBackend backend, int tileHeight, int tileWidth, LoadOptions options)
    {
        _model = model;
        _backend = backend;
        int kvTokens = KvTokens(model.Config, options);
        KvLayout layout = model.KvLayoutFor(kvTokens, BlockSize);
        EngineOptions = new GenerationEngineOptions
        {
            MaxStepTokens = options.MaxStepTokens,
            MaxSequences = options.MaxSequences,
            Blocks = layout.Blocks,
            BlockSize = BlockSize,
            ReusePrefixes = options.ReusePrefixes,
        };
        _workspace = new Workspace(backend.Allocate(model.PlanWorkspace(tileHeight, tileWidth, options.MaxStepTokens, options.MaxSequences), MemoryOwner.Workspace));
        try
        {
            _kv = backend.CreateKvStorage(layout);
        }
        catch
        {
            _workspace.Dispose();
            throw;
        }
    }

    /// <summary>The limits the scheduler must keep.</summary>
    public GenerationEngineOptions EngineOptions { get; }

    /// <inheritdoc/>
    public int VocabularySize => _model.Language.VocabularySize;

    /// <inheritdoc/>
    public int MaxPositions => _model.Config.MaxPositionEmbeddings;

    /// <summary>Tokens the KV cache has room for: as asked, or what 2 GiB of pages hold, at least one and at most sixteen
    /// contexts.</summary>
    public static int KvTokens(LlavaConfig config, LoadOptions options)
    {
        if (options.KvCacheTokens is { } asked) return asked;
        long bytesPerToken = 2L * config.NumHiddenLayers * config.NumKeyValueHeads * config.HeadDim * sizeof(float);
        long context = config.MaxPositionEmbeddings;
        return (int)Math.Clamp(DefaultKvBytes / bytesPerToken, context, Math.Min(context * MostContexts, int.MaxValue / BlockSize));
    }

    /// <summary>Runs <paramref name="work"/> while no step runs: a backend takes calls from one thread at a time.</summary>
    public void Exclusive(Action work)
    {
        lock (_gate) work();
    }

    /// <inheritdoc/>
    public void EncodeImages(RunningSequence sequence)
    {
        if (sequence.Request.Images is not PreparedImages images) return;
        lock (_gate)
        {
            MemoryBlock block = _backend.Allocate((long)images.Tokens * _model.Language.HiddenSize * sizeof(float), MemoryOwner.ImageFeatures);
            try
            {
                var features = new Tensor(block.Data, DType.Float32, images.Tokens, _model.Language.HiddenSize);
                _model.EncodeImages(images, features, _workspace, sequence.Cancellation);
                sequence.Features = new ImageFeatures(block, features);
            }
            catch
            {
                block.Dispose();
                throw;
            }
        }
    }

    /// <inheritdoc/>
    public void Forward(StepPlan plan, Span<float> logits)
    {
        lock (_gate)
        {
            using var scope = _workspace.Open();
            PagedBatch batch = plan.Batch;
            Tensor hidden = _workspace.Take(batch.TokenCount, _model.Language.HiddenSize); // [tokens, hidden]
            for (int s = 0; s < batch.SequenceCount; s++)
            {
                int start = batch.QueryStarts[s], count = batch.QueryStarts[s + 1] - start;
                Tensor features = plan.Sequences[s].Features is ImageFeatures images ? images.Rows : default;
                _model.Embed(_backend, plan.TokenIds.AsSpan(start, count), features, hidden.Slice(start, count));
            }
            _model.Language.Forward(_backend, hidden, batch, _kv, _workspace);
            if (batch.LogitCount == 0) return;
            Tensor output = _workspace.Take(batch.LogitCount, VocabularySize); // [outputs, vocab]
            _model.Language.Logits(_backend, hidden, batch.LogitRows.AsSpan(0, batch.LogitCount), output, _workspace);
            _backend.Read(output, logits);
        }
    }

    /// <inheritdoc/>
    public void ReleaseImages(RunningSequence sequence)
    {
        if (sequence.Features is not ImageFeatures features) return;
        features.Block.Dispose();
        sequence.Features = null;
    }

    /// <inheritdoc/>
    public void CopyBlock(int source, int destination)
    {
        lock (_gate) _backend.CopyKvBlock(_kv, source, destination);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _kv.Dispose();
        _workspace.Dispose();
    }

    /// <summary>A request's projected features while its prompt is being processed. Rows [image tokens, hidden_size].</summary>
    private sealed record ImageFeatures(MemoryBlock Block, Tensor Rows);
}
