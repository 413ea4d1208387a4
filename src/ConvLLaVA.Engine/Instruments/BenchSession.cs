using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>Times parts of a loaded model on its own backend, with memory of its own.</summary>
internal sealed class BenchSession(ConvLlava engine, IDeviceTimer timer, BenchPlan plan, Ceilings ceilings, List<BenchRow> rows, Action<string> say, CancellationToken cancellation)
{
    private const int BlockSize = 16;
    private readonly LlavaModel _model = engine.Model;
    private readonly IBackend _backend = engine.Backend;

    /// <summary>Runs one kind of measurement.</summary>
    public void Run(string kind)
    {
        IReadOnlyList<int> sizes = plan.ImageSizes ?? [engine.TileSize.Height];
        switch (kind)
        {
            case "encode":
                foreach (int batch in plan.Batches) foreach (int size in sizes) Encode(size, batch);
                break;
            case "prefill":
                foreach (int tokens in plan.Prompts!) Prefill(tokens);
                break;
            case "decode":
                foreach (int sequences in plan.Sequences) foreach (int context in plan.Contexts!) Decode(context, sequences);
                break;
            case "kernels":
                Operations(sizes[^1], plan.Prompts!.Max(), plan.Contexts!.Min());
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(kind), kind, null);
        }
    }

    private void Encode(int size, int batch)
    {
        int stride = _model.VisionConfig.TotalStride;
        if (size < stride) throw new InvalidInputException($"Pictures of {size} pixels give no visual token, at least {stride} pixels are needed.");
        say($"encode {size}, batch {batch}");
        ImageBatch images = Pictures(size, batch);
        Action<IBackend, Workspace> work = (backend, workspace) => Encode(backend, workspace, images);
        (OperationCost cost, long bytes) = Plan(work);
        using Workspace workspace = Room(bytes);
        Add($"encode {size} batch {batch}", cost, Measure(() => Scoped(workspace, () => work(_backend, workspace))));
    }

    private void Prefill(int tokens)
    {
        Require(tokens);
        say($"prefill {tokens}");
        using KvStorage kv = _backend.CreateKvStorage(_model.KvLayoutFor(tokens, BlockSize));
        PagedBatch batch = StepOf([new SequencePiece(0, tokens)]);
        (OperationCost cost, long bytes) = Plan((backend, workspace) => Step(backend, workspace, batch, kv));
        using Workspace workspace = Room(bytes);
        Add($"prefill {tokens}", cost, Measure(() => Scoped(workspace, () => Step(_backend, workspace, batch, kv))));
    }

    private void Decode(int context, int sequences)
    {
        Require(context + 1);
        say($"decode at {context}, {sequences} sequences");
        using DecodeState state = Filled(context, sequences);
        Add($"decode at {context}" + (sequences == 1 ? "" : $" batch {sequences}"), state.Cost, Measure(state.Run));
    }

    /// <summary>Every operation of a picture, a prompt and a decoding step, once for each shape, alone and with a cold cache.</summary>
    private void Operations(int size, int tokens, int context)
    {
        Require(Math.Max(tokens, context + 1));
        say($"operations of a picture of {size} pixels, a prompt of {tokens} tokens, a step at {context}");
        var seen = new Dictionary<OperationCost, Timing>();
        using var observed = new ObservedBackend(_backend, new TimingObserver(timer, plan, seen, cancellation), ownsInner: false);
        ImageBatch images = Pictures(size, 1);
        using (Workspace workspace = Room(Plan((backend, space) => Encode(backend, space, images)).Bytes)) Encode(observed, workspace, images);
        using (KvStorage kv = _backend.CreateKvStorage(_model.KvLayoutFor(tokens, BlockSize)))
        {
            PagedBatch batch = StepOf([new SequencePiece(0, tokens)]);
            using Workspace workspace = Room(Plan((backend, space) => Step(backend, space, batch, kv)).Bytes);
            Step(observed, workspace, batch, kv);
        }
        using (DecodeState state = Filled(context, 1)) state.RunOn(observed);
        foreach ((OperationCost cost, Timing time) in seen) rows.Add(BenchRow.Of(cost.Described, time, cost.Bytes, cost.Flops, ceilings));
    }

    private void Encode(IBackend backend, Workspace workspace, ImageBatch images)
    {
        (Tensor features, _) = _model.Vision.Forward(backend, images, workspace, cancellation: cancellation);
        Tensor projected = workspace.Take(features.Rows, _model.Language.HiddenSize);
        _model.Projector.Forward(backend, features, projected, workspace);
    }

    private void Step(IBackend backend, Workspace workspace, PagedBatch batch, KvStorage kv)
    {
        Tensor hidden = workspace.Take(batch.TokenCount, _model.Language.HiddenSize);
        Tensor logits = workspace.Take(batch.LogitCount, _model.Language.VocabularySize, DType.Float32);
        backend.RunStep(batch, false, () => _model.Step(backend, batch, [], kv, hidden, logits, workspace));
    }

    /// <summary>Pages with <paramref name="context"/> tokens for each of so many sequences, and the step that decodes the next token of all.</summary>
    private DecodeState Filled(int context, int sequences)
    {
        int pages = (context / BlockSize) + 1;
        KvStorage kv = _backend.CreateKvStorage(_model.KvLayoutFor(sequences * pages * BlockSize, BlockSize));
        try
        {
            // One sequence is computed, in pieces of what a step may hold; the others get copies of its pages.
            int most = Math.Min(512, context);
            using (Workspace workspace = Room(Plan((backend, space) => Step(backend, space, StepOf([new SequencePiece(0, most)]), kv)).Bytes))
            {
                for (int start = 0; start < context; start += most)
                {
                    cancellation.ThrowIfCancellationRequested();
                    PagedBatch piece = StepOf([new SequencePiece(start, Math.Min(most, context - start))], pages);
                    Scoped(workspace, () => Step(_backend, workspace, piece, kv));
                }
            }
            for (int s = 1; s < sequences; s++)
            {
                for (int page = 1; page <= pages; page++) _backend.CopyKvBlock(kv, page, page + (s * pages));
            }
            PagedBatch batch = StepOf([.. Enumerable.Repeat(new SequencePiece(context, 1), sequences)], pages);
            (OperationCost cost, _) = Plan((backend, workspace) => Step(backend, workspace, batch, kv));
            batch.PadDecode(_backend.PaddedDecodeRows(sequences));
            // A step that is recorded has room for the longest context, whatever it is at now.
            int real = batch.MaxBlocks;
            batch.MaxBlocks = _model.BlocksPerSequence(BlockSize);
            long bytes = Plan((backend, workspace) => Step(backend, workspace, batch, kv)).Bytes;
            batch.MaxBlocks = real;
            return new DecodeState(_model, _backend, Room(bytes), kv, batch, cost);
        }
        catch
        {
            kv.Dispose();
            throw;
        }
    }

    private PagedBatch StepOf(SequencePiece[] pieces, int pages = 0)
    {
        if (pages == 0) pages = (pieces.Max(piece => piece.Start + piece.Count) + BlockSize - 1) / BlockSize;
        PagedBatch batch = InstrumentBackend.StepOf(pieces, BlockSize, pages);
        for (int t = 0; t < batch.TokenCount; t++) batch.TokenIds[t] = (int)((t * 7919L + 11) % _model.Language.VocabularySize);
        return batch;
    }

    private static ImageBatch Pictures(int size, int count)
    {
        var random = new Random(1);
        byte[][] pixels = [.. Enumerable.Range(0, count).Select(_ => { var picture = new byte[size * size * 3]; random.NextBytes(picture); return picture; })];
        return new ImageBatch(pixels, size, size, [.. Enumerable.Range(0, 768).Select(i => ((i % 256) - 127.5f) / 64)]);
    }

    /// <summary>What <paramref name="work"/> costs and the room it takes, found without computing.</summary>
    private (OperationCost Cost, long Bytes) Plan(Action<IBackend, Workspace> work)
    {
        var sum = new SumObserver();
        using var planning = new ObservedBackend(new PlanningBackend(_backend), sum, tellsPlanned: true);
        using var workspace = Workspace.ForPlanning(_backend.ActivationType);
        work(planning, workspace);
        return (sum.Total, workspace.HighWaterMark);
    }

    private Workspace Room(long bytes) => new(_backend.Allocate(Math.Max(256, bytes), MemoryOwner.Workspace), _backend.ActivationType);

    private Timing Measure(Action work) => Timing.Measure(timer, work, plan.Runs, plan.TimeEach, warmup: 2);

    private static void Scoped(Workspace workspace, Action work)
    {
        using var scope = workspace.Open();
        work();
    }

    private void Require(int tokens)
    {
        if (tokens > _model.Config.MaxPositionEmbeddings) throw new InvalidInputException($"{tokens} tokens were asked for but the model has {_model.Config.MaxPositionEmbeddings} positions.");
    }

    private void Add(string name, OperationCost cost, Timing time) => rows.Add(BenchRow.Of(name, time, cost.Bytes, cost.Flops, ceilings));

    /// <summary>A decoding step over pages that are full, ready to be repeated as the engine repeats it.</summary>
    private sealed class DecodeState : IDisposable
    {
        private readonly LlavaModel _model;
        private readonly IBackend _backend;
        private readonly Workspace _workspace;
        private readonly KvStorage _kv;
        private readonly PagedBatch _batch;
        private readonly Tensor _hidden;
        private readonly Tensor _logits;
        private readonly Action _forward;

        public DecodeState(LlavaModel model, IBackend backend, Workspace workspace, KvStorage kv, PagedBatch batch, OperationCost cost)
        {
            (_model, _backend, _workspace, _kv, _batch) = (model, backend, workspace, kv, batch);
            Cost = cost;
            // Steps of as many rows were recorded over other matrices and pages, and the ones recorded here go with these.
            backend.ForgetSteps();
            _hidden = workspace.Take(batch.TokenCount, model.Language.HiddenSize);
            _logits = workspace.Take(batch.LogitCount, model.Language.VocabularySize, DType.Float32);
            _forward = () => Forward(_backend);
        }

        public OperationCost Cost { get; }

        public void Run() => _backend.RunStep(_batch, true, _forward);

        public void RunOn(IBackend backend) => backend.RunStep(_batch, false, () => Forward(backend));

        private void Forward(IBackend backend)
        {
            using var scope = _workspace.Open();
            _model.Step(backend, _batch, [], _kv, _hidden, _logits, _workspace);
        }

        public void Dispose()
        {
            _backend.ForgetSteps();
            _workspace.Dispose();
            _kv.Dispose();
        }
    }

    /// <summary>Adds costs up.</summary>
    private sealed class SumObserver : IOperationObserver
    {
        public OperationCost Total { get; private set; } = new("", 0, 0);

        public void Observe(OperationCost cost, Action operation)
        {
            Total = Total with { Bytes = Total.Bytes + cost.Bytes, Flops = Total.Flops + cost.Flops };
            operation();
        }

        public void ObserveStep(PagedBatch batch, Action step) => step();
    }

    /// <summary>Times each shape of an operation the first time it comes up; what follows is run once.</summary>
    private sealed class TimingObserver(IDeviceTimer timer, BenchPlan plan, Dictionary<OperationCost, Timing> seen, CancellationToken cancellation) : IOperationObserver
    {
        public void Observe(OperationCost cost, Action operation)
        {
            cancellation.ThrowIfCancellationRequested();
            if (seen.ContainsKey(cost)) operation();
            else seen.Add(cost, Timing.Measure(timer, operation, plan.Runs, plan.TimeEach / 4, warmup: 1));
        }

        public void ObserveStep(PagedBatch batch, Action step) => step();
    }
}
