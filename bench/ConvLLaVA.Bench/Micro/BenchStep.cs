using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Bench.Micro;

/// <summary>A decoding step that can be repeated, straight on the backend.</summary>
internal sealed class BenchStep : IDisposable
{
    private readonly ConvLlava _engine;
    private readonly KvStorage _pages;
    private readonly Workspace _workspace;
    private readonly PagedBatch _batch;
    private readonly Action _forward;

    private BenchStep(ConvLlava engine, int context)
    {
        _engine = engine;
        IBackend backend = engine.Backend;
        LlavaModel model = engine.Model;
        int pages = (context / ModelRunner.BlockSize) + 1;
        _pages = backend.CreateKvStorage(model.KvLayoutFor(pages * ModelRunner.BlockSize, ModelRunner.BlockSize));
        _workspace = new Workspace(backend.Allocate(64 << 20, MemoryOwner.Workspace), backend.ActivationType);
        PagedBatch prompt = InstrumentBackend.StepOf([new SequencePiece(0, context)], ModelRunner.BlockSize, pages);
        using (_workspace.Open())
        {
            Tensor rows = _workspace.Take(context, model.Language.HiddenSize), last = _workspace.Take(1, model.Language.VocabularySize, DType.Float32);
            backend.RunStep(prompt, false, () => model.Step(backend, prompt, [], _pages, rows, last, _workspace));
        }
        _batch = InstrumentBackend.StepOf([new SequencePiece(context, 1)], ModelRunner.BlockSize, pages);
        Tensor hidden = _workspace.Take(1, model.Language.HiddenSize), logits = _workspace.Take(1, model.Language.VocabularySize, DType.Float32);
        _forward = () => model.Step(backend, _batch, [], _pages, hidden, logits, _workspace);
    }

    /// <summary>Loads a model with <paramref name="context"/> tokens in its pages, on the device that the environment offers.</summary>
    public static async Task<BenchStep> CreateAsync(string model, int context) => new(await ConvLlava.LoadAsync(model, new LoadOptions { KvCacheTokens = 256 }), context);

    public void Run() => _engine.Backend.RunStep(_batch, true, _forward);

    public void Dispose()
    {
        _pages.Dispose();
        _workspace.Dispose();
        _engine.Dispose();
    }
}
