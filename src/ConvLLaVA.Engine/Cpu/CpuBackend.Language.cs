using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

public sealed unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    public void RunStep(PagedBatch batch, bool repeatable, Action forward) => forward();

    /// <inheritdoc/>
    public void EmbedTokens(EmbeddingTable table, PagedBatch batch, Tensor output)
    {
        var embedding = (CpuEmbedding)table;
        ReadOnlySpan<int> ids = batch.TokenIds.AsSpan(0, batch.TokenCount);
        Require(output.DType == DType.Float32 && output.Rows == ids.Length && output.Columns == embedding.HiddenSize, "EmbedTokens", output, output);
        if (output.Data == 0) return;
        int columns = output.Columns;
        for (int row = 0; row < ids.Length; row++)
        {
            int id = ids[row];
            if (id < 0) continue;
            if (id >= embedding.VocabularySize)
                throw new InvalidInputException($"Token id {id} is outside the vocabulary of {embedding.VocabularySize}.");
            float* to = (float*)output.Data + (nint)row * columns;
            long start = (long)id * columns;
            for (int i = 0; i < columns; i++) to[i] = Widen(embedding.Data, embedding.DType, start + i);
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
        int heads = query.Columns / headDim;
        ForRows(input.Rows, 16, t =>
        {
            float* row = (float*)projected.Data + (nint)t * projected.Columns;
            float* angles = table.Of(batch.Positions[t]);
            for (int h = 0; h < heads + layout.NumKeyValueHeads; h++) RopeTable.Rotate(row + h * headDim, angles, headDim);
            Buffer.MemoryCopy(row, (float*)query.Data + (nint)t * query.Columns, (long)query.Columns * sizeof(float), (long)query.Columns * sizeof(float));
            int block = batch.Slots[t] / layout.BlockSize, offset = batch.Slots[t] % layout.BlockSize;
            for (int h = 0; h < layout.NumKeyValueHeads; h++)
            {
                WriteRow(row + query.Columns + h * headDim, headDim, pages.Keys(layer, block, h) + offset * pages.RowLength, pages.RowLength);
                WriteRow(row + query.Columns + kvColumns + h * headDim, headDim, pages.Values(layer, block, h) + offset * pages.RowLength, pages.RowLength);
            }
        });
    }

    private static void WriteRow(float* from, int count, float* to, int length)
    {
        for (int i = 0; i < count; i++) to[i] = from[i];
        for (int i = count; i < length; i++) to[i] = 0f;
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
        Scratch scratch = _attentionScratch;
        // Tiles of queries, each within one sequence. The last ones see the longest context and go first.
        var tiles = new List<(int Sequence, int Start, int Count)>();
        for (int s = 0; s < batch.SequenceCount; s++)
        {
            int end = batch.QueryStarts[s + 1];
            for (int start = batch.QueryStarts[s]; start < end; start += _kernels.QueryTile)
                tiles.Add((s, start, Math.Min(_kernels.QueryTile, end - start)));
        }
        int group = heads / layout.NumKeyValueHeads, columns = query.Columns;
        _pool.Run(tiles.Count * heads, (task, worker) =>
        {
            (int sequence, int start, int count) = tiles[tiles.Count - 1 - task / heads];
            int head = task % heads;
            nint first = (nint)start * columns + head * headDim;
            _kernels.Attention((float*)query.Data + first, (float*)output.Data + first, columns, count, batch.Positions.AsSpan(start, count),
                batch.BlockTables.AsSpan(sequence * batch.MaxBlocks, batch.MaxBlocks), pages, layer, head / group, scratch.Of(worker));
        });
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
        ForRows(hidden.Rows, RowsPerTask(inner), row =>
        {
            float* gate = (float*)both.Data + (nint)row * 2 * inner;
            _kernels.SiluMultiply(gate, gate + inner, inner);
        });
        Product(both.Data, 2 * inner, hidden.Rows, down, EpilogueKind.Accumulate, hidden);
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
        int columns = input.Columns;
        ForRows(input.Rows, RowsPerTask(columns), row => _kernels.RmsNorm((float*)input.Data + (nint)row * columns, columns,
            (float*)norm.Weight, norm.Epsilon, (float*)output.Data + (nint)row * columns));
    }

    private RopeTable RopeOf(RopeParameters rope)
    {
        if (!_ropes.TryGetValue(rope, out RopeTable? table)) _ropes.Add(rope, table = new RopeTable(rope, Memory));
        return table;
    }
}
