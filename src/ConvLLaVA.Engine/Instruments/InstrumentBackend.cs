using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>The attention heads that a device's kernels are made for.</summary>
/// <param name="HeadDim">Elements of a head.</param>
/// <param name="Heads">Query heads.</param>
/// <param name="KeyValueHeads">Key and value heads.</param>
internal sealed record HeadShape(int HeadDim, int Heads, int KeyValueHeads);

/// <summary>A backend that measurements and self-tests use directly, without a model, and its timer.</summary>
internal sealed class InstrumentBackend : IDisposable
{
    private InstrumentBackend(IBackend backend, IDeviceTimer timer)
    {
        Backend = backend;
        Timer = timer;
    }

    /// <summary>The backend.</summary>
    public IBackend Backend { get; }

    /// <summary>Times its work.</summary>
    public IDeviceTimer Timer { get; }

    /// <summary>Makes the backend that a model with these options would run on.</summary>
    /// <exception cref="InvalidInputException">The device is not there.</exception>
    public static InstrumentBackend Open(LoadOptions options, HeadShape heads)
    {
        ILogger logger = options.LoggerFactory?.CreateLogger("ConvLLaVA.Engine.Instruments") ?? NullLogger.Instance;
        IBackend backend = Backends.Create(options, heads, () => options.WeightType ?? DType.BFloat16, logger, out _);
        try
        {
            return new InstrumentBackend(backend, TimerOf(backend));
        }
        catch
        {
            backend.Dispose();
            throw;
        }
    }

    /// <summary>The timer that fits a backend.</summary>
    public static IDeviceTimer TimerOf(IBackend backend) => ObservedBackend.Unwrap(backend) is GpuBackend gpu ? new EventTimer(gpu) : new StopwatchTimer();

    /// <summary>Puts the first rows of a bound table into a matrix of the same width: the way to bring data to any device.</summary>
    public void Upload(EmbeddingTable table, Tensor output) => Upload(Backend, table, output);

    /// <inheritdoc cref="Upload(EmbeddingTable, Tensor)"/>
    public static void Upload(IBackend backend, EmbeddingTable table, Tensor output)
    {
        PagedBatch batch = StepOf([new SequencePiece(0, output.Rows)], 16, 0);
        backend.RunStep(batch, false, () => backend.EmbedTokens(table, batch, output));
    }

    /// <summary>A step in which sequence s processes some tokens of its text, its pages following those of the sequences before it from page 1
    /// on; the last token's logits of each sequence are wanted.</summary>
    /// <param name="pieces">Tokens of each sequence.</param>
    /// <param name="blockSize">Tokens a page holds.</param>
    /// <param name="pagesPerSequence">Pages set aside for each sequence; 0 when the step has nothing to do with pages.</param>
    public static PagedBatch StepOf(IReadOnlyList<SequencePiece> pieces, int blockSize, int pagesPerSequence)
    {
        int tokens = pieces.Sum(piece => piece.Count), row = 0;
        var batch = new PagedBatch
        {
            TokenCount = tokens,
            SequenceCount = pieces.Count,
            BlockSize = blockSize,
            MaxBlocks = Math.Max(1, pagesPerSequence),
            TokenIds = [.. Enumerable.Range(0, tokens)],
            Positions = new int[tokens],
            Slots = new int[tokens],
            QueryStarts = new int[pieces.Count + 1],
            ContextLengths = [.. pieces.Select(piece => piece.Start + piece.Count)],
            BlockTables = new int[pieces.Count * Math.Max(1, pagesPerSequence)],
            LogitRows = new int[pieces.Count],
            LogitCount = pieces.Count,
        };
        for (int s = 0; s < pieces.Count; s++)
        {
            batch.QueryStarts[s] = row;
            for (int page = 0; page < pagesPerSequence; page++) batch.BlockTables[(s * pagesPerSequence) + page] = Page(s, page);
            for (int t = 0; t < pieces[s].Count; t++, row++)
            {
                int position = pagesPerSequence == 0 ? 0 : pieces[s].Start + t;
                batch.Positions[row] = position;
                batch.Slots[row] = pagesPerSequence == 0 ? 0 : (Page(s, position / blockSize) * blockSize) + (position % blockSize);
            }
            batch.LogitRows[s] = row - 1;
        }
        batch.QueryStarts[pieces.Count] = row;
        return batch;

        // Pages of a sequence lie backwards, so that nothing works by their order.
        int Page(int sequence, int page) => 1 + (sequence * pagesPerSequence) + (pagesPerSequence - 1 - page);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Timer.Dispose();
        Backend.Dispose();
    }
}

/// <summary>Tokens that a sequence processes in a step.</summary>
/// <param name="Start">Tokens it has in the pages already.</param>
/// <param name="Count">Tokens of this step.</param>
internal readonly record struct SequencePiece(int Start, int Count);
