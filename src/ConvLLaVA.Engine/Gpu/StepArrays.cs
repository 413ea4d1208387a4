using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>A step's batch on the device: fixed arrays in one block, filled by one copy a step. As the addresses never change, a
/// recorded step reads whatever the next upload put there.</summary>
internal sealed class StepArrays(GpuStream stream, GpuMemory memory, KernelShape shape) : IDisposable
{
    private const int Alignment = 64; // integers between arrays: whole cache lines
    private StepLimits _limits = new(0, 0, 0, 0);
    private GpuBlock? _block;
    private PinnedPair? _staging;
    private int[] _tileEnds = []; // how far each tile sees, while they are ordered
    private long _tokenIds, _positions, _slots, _queryStarts, _contextLengths, _logitRows, _decodeRows, _decodeSequences, _tileSequences, _tileStarts, _sampling, _tables; // offsets in integers

    private long _tileRows, _tilePairs, _tileKeys, _decodeKeys; // what attention costs: pairs are of a row and a key it sees

    /// <summary>Counts how often the addresses changed, so that recordings with older ones can be dropped.</summary>
    public int Generation { get; private set; }

    /// <summary>The largest step there is room for.</summary>
    public StepLimits Limits => _limits;

    /// <summary>Ids of the tokens. [tokens]</summary>
    public nint TokenIds => At(_tokenIds);

    /// <summary>Positions of the tokens. [tokens]</summary>
    public nint Positions => At(_positions);

    /// <summary>Slots of the tokens. [tokens]</summary>
    public nint Slots => At(_slots);

    /// <summary>First row of each sequence. [sequences + 1]</summary>
    public nint QueryStarts => At(_queryStarts);

    /// <summary>Context of each sequence. [sequences]</summary>
    public nint ContextLengths => At(_contextLengths);

    /// <summary>Rows whose logits are wanted. [outputs]</summary>
    public nint LogitRows => At(_logitRows);

    /// <summary>Rows of sequences with one token. [DecodeCount]</summary>
    public nint DecodeRows => At(_decodeRows);

    /// <summary>Their sequences. [DecodeCount]</summary>
    public nint DecodeSequences => At(_decodeSequences);

    /// <summary>Sequence of each tile of query rows. [TileCount]</summary>
    public nint TileSequences => At(_tileSequences);

    /// <summary>First row of each tile, counted from its sequence's first. [TileCount]</summary>
    public nint TileStarts => At(_tileStarts);

    /// <summary>Pages of each sequence. [sequences, <see cref="TableStride"/>]</summary>
    public nint BlockTables => At(_tables);

    /// <summary>How tokens are chosen.</summary>
    public SamplingArrays Sampling { get; } = new();

    /// <summary>Row length of <see cref="BlockTables"/>; the same in every step.</summary>
    public int TableStride => _limits.BlocksPerSequence;

    /// <summary>Sequences with one token.</summary>
    public int DecodeCount { get; private set; }

    /// <summary>Tiles of the other sequences.</summary>
    public int TileCount { get; private set; }

    /// <summary>The longest context among the sequences with one token.</summary>
    public int LongestDecode { get; private set; }

    /// <summary>Bytes of queries, results, keys and values of the tiles.</summary>
    public long PrefillBytes(int elementBytes)
        => (2L * _tileRows * shape.Heads + 2 * _tileKeys * shape.KeyValueHeads) * shape.HeadDim * elementBytes;

    /// <summary>Floating-point operations of the tiles' attention.</summary>
    public long PrefillFlops() => 4 * _tilePairs * shape.Heads * shape.HeadDim;

    /// <summary>Bytes of keys and values of the decoding rows.</summary>
    public long DecodeBytes(int elementBytes) => 2 * _decodeKeys * shape.KeyValueHeads * shape.HeadDim * elementBytes;

    /// <summary>Floating-point operations of the decoding rows' attention.</summary>
    public long DecodeFlops() => 4 * _decodeKeys * shape.Heads * shape.HeadDim;

    /// <summary>Makes room for steps up to <paramref name="limits"/>.</summary>
    public void Reserve(StepLimits limits)
    {
        var larger = new StepLimits(Math.Max(limits.Tokens, _limits.Tokens), Math.Max(limits.Sequences, _limits.Sequences),
            Math.Max(limits.BlocksPerSequence, _limits.BlocksPerSequence), Math.Max(limits.LogitRows, _limits.LogitRows));
        if (larger == _limits && _block is not null) return;
        stream.Enter();
        stream.Synchronize(); // nothing may still read the old arrays
        long end = 0;
        _tokenIds = Place(larger.Tokens, ref end);
        _positions = Place(larger.Tokens, ref end);
        _slots = Place(larger.Tokens, ref end);
        _queryStarts = Place(larger.Sequences + 1, ref end);
        _contextLengths = Place(larger.Sequences, ref end);
        _logitRows = Place(larger.LogitRows, ref end);
        _decodeRows = Place(larger.Sequences, ref end);
        _decodeSequences = Place(larger.Sequences, ref end);
        int tiles = (larger.Tokens / shape.QueryTile) + larger.Sequences + 1;
        _tileSequences = Place(tiles, ref end);
        _tileStarts = Place(tiles, ref end);
        _sampling = Place(SamplingArrays.FixedWords(larger.LogitRows), ref end);
        _tables = Place((long)larger.Sequences * larger.BlocksPerSequence, ref end); // only the rows in use are copied, and right behind them
        Place(SamplingArrays.HistoryWords(larger.LogitRows, larger.BlocksPerSequence * shape.BlockSize), ref end); // generated tokens, as many as a context has
        Dispose();
        _limits = larger;
        _tileEnds = new int[tiles];
        _block = memory.Allocate(end * sizeof(int), MemoryOwner.Workspace);
        _staging = new PinnedPair(stream, end * sizeof(int));
        Generation++;
    }

    /// <summary>Brings a batch to the device.</summary>
    public unsafe void Upload(PagedBatch batch)
    {
        int outputs = Math.Max(batch.LogitCount, batch.Sampling.Rows), blocks = Math.Max(batch.MaxBlocks, (batch.Sampling.MaxCounted + shape.BlockSize - 1) / shape.BlockSize);
        if (batch.TokenCount > _limits.Tokens || batch.SequenceCount > _limits.Sequences || blocks > _limits.BlocksPerSequence || outputs > _limits.LogitRows || _block is null)
            Reserve(new StepLimits(batch.TokenCount, batch.SequenceCount, blocks, outputs));
        int* to = (int*)_staging!.Next();
        Put(batch.TokenIds, batch.TokenCount, to + _tokenIds);
        Put(batch.Positions, batch.TokenCount, to + _positions);
        Put(batch.Slots, batch.TokenCount, to + _slots);
        Put(batch.QueryStarts, batch.SequenceCount + 1, to + _queryStarts);
        Put(batch.ContextLengths, batch.SequenceCount, to + _contextLengths);
        Put(batch.LogitRows, batch.LogitCount, to + _logitRows);
        for (int s = 0; s < batch.SequenceCount; s++)
        {
            batch.BlockTables.AsSpan(s * batch.MaxBlocks, batch.MaxBlocks).CopyTo(new Span<int>(to + _tables + ((long)s * TableStride), batch.MaxBlocks));
        }
        Divide(batch, to);
        long end = Sampling.Put(batch.Sampling, to, _block!.Data, _sampling, _tables + ((long)batch.SequenceCount * TableStride));
        using CopyStream.Upload upload = stream.Copies.Begin();
        _staging.Send(upload, _block.Data, end * sizeof(int));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _block?.Dispose();
        _staging?.Dispose();
        _block = null;
        _staging = null;
    }

    /// <summary>Sequences of one token go to the decode kernel, the others to the prefill kernel in tiles of query rows; the tiles with
    /// the longest context come first, for they take longest.</summary>
    private unsafe void Divide(PagedBatch batch, int* to)
    {
        int tiles = 0, decodes = 0, longest = 0;
        _tileRows = _tilePairs = _tileKeys = _decodeKeys = 0;
        int* sequences = to + _tileSequences, starts = to + _tileStarts;
        for (int s = 0; s < batch.SequenceCount; s++)
        {
            int first = batch.QueryStarts[s], count = batch.QueryStarts[s + 1] - first;
            if (count == 1 && !shape.Deterministic)
            {
                to[_decodeRows + decodes] = first;
                to[_decodeSequences + decodes++] = s;
                longest = Math.Max(longest, batch.ContextLengths[s]);
                _decodeKeys += batch.ContextLengths[s];
                continue;
            }
            _tileRows += count;
            _tileKeys += batch.ContextLengths[s];
            _tilePairs += count * (batch.ContextLengths[s] - ((count - 1) / 2L));
            for (int start = 0; start < count; start += shape.QueryTile)
            {
                int sees = batch.ContextLengths[s] - count + Math.Min(count, start + shape.QueryTile), at = tiles++;
                for (; at > 0 && _tileEnds[at - 1] < sees; at--)
                {
                    _tileEnds[at] = _tileEnds[at - 1];
                    sequences[at] = sequences[at - 1];
                    starts[at] = starts[at - 1];
                }
                _tileEnds[at] = sees;
                sequences[at] = s;
                starts[at] = start;
            }
        }
        (DecodeCount, TileCount, LongestDecode) = (decodes, tiles, longest);
    }

    private static unsafe void Put(int[] values, int count, int* to) => values.AsSpan(0, count).CopyTo(new Span<int>(to, count));

    private static long Place(long count, ref long end)
    {
        long start = end;
        end += (count + Alignment - 1) / Alignment * Alignment;
        return start;
    }

    private nint At(long offset) => (_block ?? throw new InvalidOperationException("No step was uploaded.")).Data + (nint)(offset * sizeof(int));
}
