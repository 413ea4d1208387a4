using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Models;

/// <summary>Executes what the scheduler plans: encodes pictures, runs mixed steps through the language model, copies pages.
/// Owns the workspace and the KV pages, both sized once at load.</summary>
internal sealed class ModelRunner : IModelRunner, IDisposable
{
    /// <summary>Tokens a KV page holds.</summary>
    public const int BlockSize = 16;

    private const long DefaultKvBytes = 2L << 30;
    private const int MostContexts = 16;
    private readonly LlavaModel _model;
    private readonly IBackend _backend;
    private readonly Workspace _workspace;
    private readonly KvStorage _kv;
    private readonly Lock _gate = new();
    private readonly Action _forward;
    private readonly Action _sample;
    private Tensor[] _features = []; // [sequences], longer than what is in use
    private StepPlan? _plan; // the running step, and its matrices
    private Tensor _hidden;
    private Tensor _logits;

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
        _forward = RunForward;
        _sample = ChooseTokens;
        int decodeRows = backend.PaddedDecodeRows(Math.Min(options.MaxSequences, options.MaxStepTokens));
        int tokens = Math.Max(options.MaxStepTokens, decodeRows), outputs = Math.Max(options.MaxSequences, decodeRows);
        _workspace = new Workspace(backend.Allocate(model.PlanWorkspace(tileHeight, tileWidth, tokens, outputs), MemoryOwner.Workspace), backend.ActivationType);
        KvLayout layout;
        try
        {
            backend.ReserveSteps(new StepLimits(tokens, outputs, model.BlocksPerSequence(BlockSize), outputs));
            layout = model.KvLayoutFor(KvTokens(model.Config, options, backend.ActivationType, backend.AvailableBytes), BlockSize);
            _kv = backend.CreateKvStorage(layout);
        }
        catch
        {
            _workspace.Dispose();
            throw;
        }
        EngineOptions = new GenerationEngineOptions
        {
            MaxStepTokens = options.MaxStepTokens,
            MaxSequences = options.MaxSequences,
            Blocks = layout.Blocks,
            BlockSize = BlockSize,
            ReusePrefixes = options.ReusePrefixes,
        };
    }

    /// <summary>The limits the scheduler must keep.</summary>
    public GenerationEngineOptions EngineOptions { get; }

    /// <inheritdoc/>
    public int VocabularySize => _model.Language.VocabularySize;

    /// <inheritdoc/>
    public int MaxPositions => _model.Config.MaxPositionEmbeddings;

    /// <inheritdoc/>
    public ConvLlavaException? Fault => _backend.Fault;

    /// <summary>Bytes of the keys and values of one token.</summary>
    public static long KvBytesPerToken(LlavaConfig config, DType type)
        => 2L * config.NumHiddenLayers * config.NumKeyValueHeads * config.HeadDim * type.SizeInBytes();

    /// <summary>Tokens the KV cache has room for: as asked; or what the memory left on the device holds, at most one context for each
    /// sequence; or, where memory has no known end, what 2 GiB of pages hold, at least one and at most sixteen contexts.</summary>
    /// <param name="config">Sizes.</param>
    /// <param name="options">What was asked for.</param>
    /// <param name="type">Type of the pages.</param>
    /// <param name="available">Bytes left, or null where there is no limit.</param>
    /// <exception cref="ConvLlavaException">Too little is left for even one page.</exception>
    public static int KvTokens(LlavaConfig config, LoadOptions options, DType type, long? available)
    {
        if (options.KvCacheTokens is { } asked) return asked;
        long bytesPerToken = KvBytesPerToken(config, type), context = config.MaxPositionEmbeddings;
        if (options.KvMemory is null && available is null)
            return (int)Math.Clamp(DefaultKvBytes / bytesPerToken, context, Math.Min(context * MostContexts, int.MaxValue / BlockSize));
        long bytes = options.KvMemory ?? available!.Value;
        long tokens = (bytes / bytesPerToken / BlockSize * BlockSize) - BlockSize; // page 0 belongs to nobody
        if (tokens < BlockSize)
        {
            throw new ConvLlavaException($"{bytes} bytes are left for the KV cache, but its two smallest pages take {2 * BlockSize * bytesPerToken}: "
                + "allow more (kv memory, gpu memory fraction), or run with fewer or smaller steps (max step tokens, max sequences).");
        }
        if (options.KvMemory is null) tokens = Math.Min(tokens, Math.Max(context, context * options.MaxSequences));
        return (int)Math.Min(tokens, int.MaxValue / BlockSize);
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
            MemoryBlock block = _backend.Allocate((long)images.Tokens * _model.Language.HiddenSize * _backend.ActivationType.SizeInBytes(), MemoryOwner.ImageFeatures);
            try
            {
                var features = new Tensor(block.Data, _backend.ActivationType, images.Tokens, _model.Language.HiddenSize);
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
    public void Forward(StepPlan plan)
    {
        lock (_gate)
        {
            using var scope = _workspace.Open();
            PagedBatch batch = plan.Batch;
            bool decode = batch.IsDecode;
            if (decode) batch.PadDecode(_backend.PaddedDecodeRows(batch.TokenCount));
            _plan = plan;
            _hidden = _workspace.Take(batch.TokenCount, _model.Language.HiddenSize); // [tokens, hidden]
            _logits = _workspace.Take(batch.LogitCount, VocabularySize, DType.Float32); // [outputs, vocab]
            _backend.RunStep(batch, decode, _forward, _sample);
        }
    }

    private void RunForward()
    {
        StepPlan plan = _plan!;
        PagedBatch batch = plan.Batch;
        ReadOnlySpan<Tensor> features = default;
        if (!batch.IsDecode)
        {
            if (_features.Length < plan.Sequences.Count) _features = new Tensor[plan.Sequences.Count];
            for (int s = 0; s < plan.Sequences.Count; s++) _features[s] = plan.Sequences[s].Features is ImageFeatures images ? images.Rows : default;
            features = _features;
        }
        _model.Step(_backend, batch, features, _kv, _hidden, _logits, _workspace);
    }

    /// <summary>Padding has logits too, but nobody to choose for.</summary>
    private void ChooseTokens()
    {
        PagedBatch batch = _plan!.Batch;
        if (batch.Sampling.Rows > 0) _backend.Sample(_logits.Slice(0, batch.Sampling.Rows), batch, _workspace);
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
