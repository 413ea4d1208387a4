using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

public sealed unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    public void RunStep(PagedBatch batch, bool repeatable, Action forward, Action? after = null)
    {
        forward();
        after?.Invoke();
    }

    /// <inheritdoc/>
    public void EmbedTokens(EmbeddingTable table, PagedBatch batch, Tensor output)
    {
        var embedding = (CpuEmbedding)table;
        ReadOnlySpan<int> ids = batch.TokenIds.AsSpan(0, batch.TokenCount);
        Require(output.DType == DType.Float32 && output.Rows == ids.Length && output.Columns == embedding.HiddenSize, "EmbedTokens", output, output);
        if (output.Data == 0) return;
        for (int row = 0; row < ids.Length; row++)
        {
            int id = ids[row];
            if (id < 0) continue;
            if (id >= embedding.VocabularySize)
                throw new InvalidInputException($"Token id {id} is outside the vocabulary of {embedding.VocabularySize}.");
            _kernels.Widen(embedding.Data + (nint)id * output.Columns * embedding.DType.SizeInBytes(), embedding.DType,
                (float*)output.Data + (nint)row * output.Columns, output.Columns);
        }
    }

    /// <inheritdoc/>
    public void NormQkvRope(Tensor input, NormWeight norm, LinearWeight qkv, RopeParameters rope, PagedBatch batch, KvStorage kv, int layer,
        Tensor query, Workspace workspace)
    {
        int headDim = rope.HeadDim;
        RequireRows("NormQkvRope", input, qkv.InFeatures, query, query.Columns);
        if (headDim <= 0 || headDim % 2 != 0 || query.Columns % headDim != 0)
            throw new ArgumentException($"NormQkvRope: {query.Columns} columns of queries and head_dim {headDim} do not fit together.");
        int kvColumns = (qkv.OutFeatures - query.Columns) / 2;
        if (kvColumns <= 0 || 2 * kvColumns + query.Columns != qkv.OutFeatures || kvColumns % headDim != 0)
        {
            throw new ArgumentException($"NormQkvRope: {qkv.OutFeatures} outputs do not hold {query.Columns} columns of queries "
                + $"and keys and values of head_dim {headDim}.");
        }
        using Workspace.Scope scope = workspace.Open();
        Tensor normed = workspace.Take(input.Rows, input.Columns);
        Tensor projected = workspace.Take(input.Rows, qkv.OutFeatures);
        if (query.Data == 0 || input.Rows == 0) return;

        var pages = (KvPages)kv;
        KvLayout layout = pages.Layout;
        if (layout.HeadDim != headDim || layout.NumKeyValueHeads * headDim != kvColumns || layout.BlockSize != batch.BlockSize)
            throw new ArgumentException($"NormQkvRope: the pages ({layout}) do not fit keys of {kvColumns} columns in blocks of {batch.BlockSize}.");
        ArgumentOutOfRangeException.ThrowIfNegative(layer);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(layer, layout.Layers);
        batch.Check("NormQkvRope", input.Rows, layout);
        RmsNormRows(input, (CpuNorm)norm, normed);
        Product(normed, qkv, EpilogueKind.Store, projected);

        int highest = 0;
        for (int t = 0; t < input.Rows; t++) highest = Math.Max(highest, batch.Positions[t]);
        RopeTable table = RopeOf(rope);
        table.Reach(highest);
        var work = new RopeWork(_kernels, projected, query, table, batch, pages, layer);
        _pool.Run(input.Rows, 16, ref work);
    }

    // Rotates queries and keys and puts keys and values into the pages. projected [tokens, (heads + 2 * kv_heads) * head_dim]
    private readonly struct RopeWork(CpuKernels kernels, Tensor projected, Tensor query, RopeTable table, PagedBatch batch, KvPages pages, int layer) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            KvLayout layout = pages.Layout;
            int headDim = layout.HeadDim, heads = query.Columns / headDim, kvColumns = layout.NumKeyValueHeads * headDim;
            for (int t = first; t < end; t++)
            {
                float* row = (float*)projected.Data + (nint)t * projected.Columns;
                float* angles = table.Of(batch.Positions[t]);
                for (int h = 0; h < heads + layout.NumKeyValueHeads; h++) kernels.Rotate(row + h * headDim, angles, headDim);
                new ReadOnlySpan<float>(row, query.Columns).CopyTo(new Span<float>((float*)query.Data + (nint)t * query.Columns, query.Columns));
                int block = batch.Slots[t] / layout.BlockSize, offset = batch.Slots[t] % layout.BlockSize;
                for (int h = 0; h < layout.NumKeyValueHeads; h++)
                {
                    float* key = row + query.Columns + h * headDim;
                    WriteRow(key, headDim, pages.Keys(layer, block, h) + offset * pages.RowLength, pages.RowLength);
                    WriteRow(key + kvColumns, headDim, pages.Values(layer, block, h) + offset * pages.RowLength, pages.RowLength);
                }
            }
        }
    }

    private static void WriteRow(float* from, int count, float* to, int length)
    {
        new ReadOnlySpan<float>(from, count).CopyTo(new Span<float>(to, count));
        new Span<float>(to + count, length - count).Clear();
    }

    /// <inheritdoc/>
    public void Sample(Tensor logits, PagedBatch batch, Workspace workspace)
    {
        Require(logits.DType == DType.Float32 && (logits.Data == 0 || logits.Rows == batch.Sampling.Rows), "Sample", logits, logits);
        if (logits.Data == 0) return;
        for (int row = 0; row < logits.Rows; row++)
            _sampler.Choose(new Span<float>((float*)logits.Data + (nint)row * logits.Columns, logits.Columns), batch.Sampling, row);
    }

    /// <inheritdoc/>
    public void PagedAttention(Tensor query, PagedBatch batch, KvStorage kv, int layer, Tensor output, Workspace workspace)
    {
        RequireRows("PagedAttention", query, query.Columns, output, query.Columns);
        if (output.Data == 0 || output.Rows == 0) return;
        var pages = (KvPages)kv;
        KvLayout layout = pages.Layout;
        int headDim = layout.HeadDim, heads = query.Columns / headDim;
        if (heads * headDim != query.Columns || heads % layout.NumKeyValueHeads != 0 || layout.BlockSize != batch.BlockSize)
            throw new ArgumentException($"PagedAttention: the pages ({layout}) do not fit queries of {query.Columns} columns in blocks of {batch.BlockSize}.");
        ArgumentOutOfRangeException.ThrowIfNegative(layer);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(layer, layout.Layers);
        batch.Check("PagedAttention", query.Rows, layout);

        int needed = _kernels.AttentionScratchFloats(headDim, layout.BlockSize);
        if (_attentionScratch is null || _attentionScratch.Floats < needed)
        {
            _attentionScratch?.Dispose();
            _attentionScratch = new Scratch(Memory, Threads, needed);
        }
        CutIntoTiles(batch);
        var work = new AttentionWork(_kernels, _attentionScratch, query, output, batch, pages, layer, _tiles);
        _pool.Run(_tiles.Count * heads, 1, ref work);
    }

    // Tiles of queries, each within one sequence.
    private void CutIntoTiles(PagedBatch batch)
    {
        _tiles.Clear();
        for (int s = 0; s < batch.SequenceCount; s++)
        {
            int end = batch.QueryStarts[s + 1];
            for (int start = batch.QueryStarts[s]; start < end; start += _kernels.QueryTile)
                _tiles.Add(new QueryTile(s, start, Math.Min(_kernels.QueryTile, end - start)));
        }
    }

    private readonly record struct QueryTile(int Sequence, int Start, int Count);

    // Items are tiles of heads: those of a head follow each other and find its keys and values in the cache. The last tiles see the
    // longest context and go first.
    private readonly struct AttentionWork(CpuKernels kernels, Scratch scratch, Tensor query, Tensor output, PagedBatch batch, KvPages pages, int layer,
        List<QueryTile> tiles) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            int columns = query.Columns, headDim = pages.Layout.HeadDim, heads = columns / headDim, group = heads / pages.Layout.NumKeyValueHeads;
            for (int item = first; item < end; item++)
            {
                QueryTile tile = tiles[tiles.Count - 1 - item % tiles.Count];
                int head = item / tiles.Count;
                nint at = (nint)tile.Start * columns + head * headDim;
                kernels.Attention((float*)query.Data + at, (float*)output.Data + at, columns, tile.Count, batch.Positions.AsSpan(tile.Start, tile.Count),
                    batch.BlockTables.AsSpan(tile.Sequence * batch.MaxBlocks, batch.MaxBlocks), pages, layer, head / group, scratch.Of(worker));
            }
        }
    }

    /// <inheritdoc/>
    public void NormGatedMlpResidual(Tensor hidden, NormWeight norm, LinearWeight gateUp, LinearWeight down, Workspace workspace)
    {
        int inner = down.InFeatures;
        Require(gateUp.OutFeatures == 2 * inner && gateUp.InFeatures == hidden.Columns && down.OutFeatures == hidden.Columns
            && hidden.DType == DType.Float32, "NormGatedMlpResidual", hidden, hidden);
        using Workspace.Scope scope = workspace.Open();
        Tensor normed = workspace.Take(hidden.Rows, hidden.Columns);
        Tensor both = workspace.Take(hidden.Rows, 2 * inner);
        if (hidden.Data == 0 || hidden.Rows == 0) return;
        RmsNormRows(hidden, (CpuNorm)norm, normed);
        Product(normed, gateUp, EpilogueKind.Store, both);
        // The product stays where the gate was; the second matrix reads rows that far apart.
        var work = new SiluWork(_kernels, both, inner);
        _pool.Run(hidden.Rows, RowsPerTask(inner), ref work);
        Product(both.Data, 2 * inner, hidden.Rows, down, EpilogueKind.Accumulate, hidden);
    }

    private readonly struct SiluWork(CpuKernels kernels, Tensor both, int inner) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            for (int row = first; row < end; row++)
            {
                float* gate = (float*)both.Data + (nint)row * both.Columns;
                kernels.SiluMultiply(gate, gate + inner, inner);
            }
        }
    }

    /// <inheritdoc/>
    public void NormLogits(Tensor hidden, PagedBatch batch, NormWeight norm, LinearWeight head, Tensor logits, Workspace workspace)
    {
        var factor = (CpuNorm)norm;
        int count = batch.LogitCount;
        Require(hidden.DType == DType.Float32 && logits.DType == DType.Float32 && hidden.Columns == head.InFeatures
            && factor.Features == hidden.Columns && logits.Rows == count && logits.Columns == head.OutFeatures, "NormLogits", hidden, logits);
        using Workspace.Scope scope = workspace.Open();
        Tensor normed = workspace.Take(count, hidden.Columns);
        if (logits.Data == 0 || count == 0) return;
        int[] rows = batch.LogitRows;
        for (int i = 0; i < count; i++)
        {
            if ((uint)rows[i] >= (uint)hidden.Rows) throw new ArgumentOutOfRangeException(nameof(batch), rows[i], $"There are {hidden.Rows} rows.");
            _kernels.RmsNorm((float*)hidden.Data + (nint)rows[i] * hidden.Columns, hidden.Columns, (float*)factor.Weight, factor.Epsilon,
                (float*)normed.Data + (nint)i * hidden.Columns);
        }
        Product(normed, head, EpilogueKind.Store, logits);
    }

    private void RmsNormRows(Tensor input, CpuNorm norm, Tensor output)
    {
        Require(norm.Features == input.Columns, "RMSNorm", input, output);
        var work = new RmsNormWork(_kernels, input, norm, output);
        _pool.Run(input.Rows, RowsPerTask(input.Columns), ref work);
    }

    private readonly struct RmsNormWork(CpuKernels kernels, Tensor input, CpuNorm norm, Tensor output) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            nint columns = input.Columns;
            for (int row = first; row < end; row++)
                kernels.RmsNorm((float*)input.Data + row * columns, input.Columns, (float*)norm.Weight, norm.Epsilon, (float*)output.Data + row * columns);
        }
    }

    private RopeTable RopeOf(RopeParameters rope)
    {
        if (!_ropes.TryGetValue(rope, out RopeTable? table)) _ropes.Add(rope, table = new RopeTable(rope, Memory));
        return table;
    }
}
