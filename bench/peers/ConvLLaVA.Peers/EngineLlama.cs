using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Peers;

/// <summary>This engine's language model: the steps that the scheduler would run, without the scheduler.</summary>
internal sealed class EngineLlama : ILanguageModel
{
    private const int BlockSize = 16;
    private readonly ConvLlava _engine;
    private readonly LlavaModel _model;
    private readonly IBackend _backend;
    private readonly KvStorage _kv;
    private readonly Workspace _workspace;
    private readonly int _pages;
    private readonly float[] _logits;
    private int _context;

    public EngineLlama(string model, LoadOptions options, int maxTokens)
    {
        _engine = ConvLlava.LoadAsync(model, options).GetAwaiter().GetResult();
        (_model, _backend) = (_engine.Model, _engine.Backend);
        _pages = (maxTokens + BlockSize - 1) / BlockSize;
        _kv = _backend.CreateKvStorage(_model.KvLayoutFor(_pages * BlockSize, BlockSize));
        _logits = new float[_model.Language.VocabularySize];
        using var planned = Workspace.ForPlanning(_backend.ActivationType);
        Run(new PlanningBackend(_backend), planned, Batch(new int[maxTokens]));
        _workspace = new Workspace(_backend.Allocate(planned.HighWaterMark, MemoryOwner.Workspace), _backend.ActivationType);
    }

    /// <inheritdoc/>
    public ReadOnlySpan<float> Logits => _logits;

    /// <inheritdoc/>
    public void Reset() => _context = 0;

    /// <inheritdoc/>
    public void Feed(int[] tokens)
    {
        PagedBatch batch = Batch(tokens);
        _engine.Exclusive(() => Run(_backend, _workspace, batch));
        _context += tokens.Length;
    }

    /// <summary>The same step without keeping its tokens, with the backend that <paramref name="wrap"/> makes of the engine's.</summary>
    public void FeedOn(Func<IBackend, IBackend> wrap, int[] tokens)
    {
        PagedBatch batch = Batch(tokens);
        _engine.Exclusive(() => Run(wrap(_backend), _workspace, batch));
    }

    /// <summary>Goes on as if so many tokens had been fed.</summary>
    public void Skip(int context) => _context = context;

    private PagedBatch Batch(int[] tokens)
    {
        PagedBatch batch = InstrumentBackend.StepOf([new SequencePiece(_context, tokens.Length)], BlockSize, _pages);
        tokens.CopyTo(batch.TokenIds, 0);
        return batch;
    }

    private void Run(IBackend backend, Workspace workspace, PagedBatch batch)
    {
        using var scope = workspace.Open();
        Tensor hidden = workspace.Take(batch.TokenCount, _model.Language.HiddenSize); // [tokens, hidden_size]
        Tensor logits = workspace.Take(1, _model.Language.VocabularySize, DType.Float32); // [1, vocab_size]
        backend.RunStep(batch, false, () => _model.Step(backend, batch, [], _kv, hidden, logits, workspace));
        if (!workspace.IsPlanning) backend.Read(logits, _logits);
    }

    public void Dispose()
    {
        _workspace.Dispose();
        _kv.Dispose();
        _engine.Dispose();
    }
}
