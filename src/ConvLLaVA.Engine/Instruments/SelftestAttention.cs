using System.Collections.Concurrent;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>The cases of keys, values and pages.</summary>
internal sealed partial class SelftestCases
{
    /// <summary>Norm, projection and RoPE of sequences' next tokens: the queries.</summary>
    public SelftestCase Queries(AttentionWeights weights, params SequencePiece[] pieces) => new Attending(this, weights, pieces).Queries();

    /// <summary>The same and attention over the pages, after the tokens before these were written.</summary>
    public SelftestCase Attention(AttentionWeights weights, params SequencePiece[] pieces) => new Attending(this, weights, pieces).Attention(copied: false);

    /// <summary>Attention over pages that were copied before: the copies must be the originals.</summary>
    public SelftestCase CopiedPages(AttentionWeights weights, params SequencePiece[] pieces) => new Attending(this, weights, pieces).Attention(copied: true);

    /// <summary>Binds the weights that several cases share.</summary>
    public AttentionWeights BindAttention(int hidden)
    {
        (NormWeight norm, float[] normWeight) = RmsNormWeight(hidden);
        WeightTensor query = data.Linear((long)heads.Heads * heads.HeadDim, hidden), key = data.Linear((long)heads.KeyValueHeads * heads.HeadDim, hidden),
            value = data.Linear((long)heads.KeyValueHeads * heads.HeadDim, hidden);
        return new AttentionWeights(hidden, norm, normWeight, query, key, value, backend.LoadLinear([query, key, value]));
    }

    /// <summary>A norm and the three projections behind it.</summary>
    internal sealed record AttentionWeights(int Hidden, NormWeight Norm, float[] NormWeight, WeightTensor Query, WeightTensor Key, WeightTensor Value, LinearWeight Bound);

    /// <summary>Sequences whose keys and values go into pages.</summary>
    private sealed class Attending
    {
        private const int Layer = 1; // of two, so that a wrong layer shows
        private readonly AttentionWeights _weights;
        private readonly HeadShape _heads;
        private readonly RopeParameters _rope;
        private readonly SequencePiece[] _pieces;
        private readonly Input _input;
        private readonly int[] _firstRows; // of each sequence in the input, the tokens before included
        private readonly KvStorage _pages;
        private readonly int _pagesPerSequence;
        private readonly ConcurrentDictionary<(WeightTensor, int, int, int), float[]> _projected = new();

        public Attending(SelftestCases cases, AttentionWeights weights, SequencePiece[] pieces)
        {
            _weights = weights;
            _heads = cases.AttentionHeads;
            _rope = cases._rope;
            _pieces = pieces;
            _firstRows = new int[pieces.Length];
            for (int s = 1; s < pieces.Length; s++) _firstRows[s] = _firstRows[s - 1] + pieces[s - 1].Start + pieces[s - 1].Count;
            _input = cases.Matrix(pieces.Sum(piece => piece.Start + piece.Count), weights.Hidden, 0);
            _pagesPerSequence = (pieces.Max(piece => piece.Start + piece.Count) + BlockSize - 1) / BlockSize;
            // Twice the pages: the second half is for copies.
            _pages = cases.Target.CreateKvStorage(new KvLayout(2, (2 * pieces.Length * _pagesPerSequence) + 1, BlockSize, _heads.KeyValueHeads, _heads.HeadDim));
            cases.Owned.Add(_pages);
        }

        private int Width => _heads.Heads * _heads.HeadDim;

        private string Shape => $"{_weights.Hidden} -> {_heads.Heads}/{_heads.KeyValueHeads} heads of {_heads.HeadDim}: " + string.Join(", ", _pieces.GroupBy(piece => piece).Select(group =>
            (group.Count() > 1 ? $"{group.Count()} x " : "") + (group.Key.Start > 0 ? $"{group.Key.Count} after {group.Key.Start}" : $"{group.Key.Count}")));

        public SelftestCase Queries() => new("norm + QKV + RoPE", Shape, (device, workspace) => Run(device, workspace, false, false), (actual, compare) =>
            ForEachToken((row, sequence, position, head) => compare.Add(Head(actual, row, head), Wide(QueryHead(sequence, position, head)))));

        public SelftestCase Attention(bool copied)
        {
            string name = copied ? "attention over copied pages" : _pieces.All(piece => piece.Count == 1) ? "attention (decode)" : "attention (prefill)";
            return new(name, Shape, (device, workspace) => Run(device, workspace, true, copied), (actual, compare) => ForEachToken((row, sequence, position, head) =>
            {
                int shared = head / (_heads.Heads / _heads.KeyValueHeads);
                compare.Add(Head(actual, row, head), SelftestReference.Attention(QueryHead(sequence, position, head),
                    t => Projected(_weights.Key, sequence, t, shared, true), t => Projected(_weights.Value, sequence, t, shared, false), position + 1));
            }));
        }

        /// <summary>Writes what comes before, then runs the step.</summary>
        private Tensor Run(IBackend device, Workspace workspace, bool attend, bool copied)
        {
            Tensor all = _input.Upload(device, workspace);
            SequencePiece[] before = [.. _pieces.Select(piece => new SequencePiece(0, piece.Start))];
            if (before.Any(piece => piece.Count > 0))
            {
                PagedBatch first = Batch(before);
                Project(device, workspace, all, before, first);
            }
            PagedBatch batch = Batch(_pieces);
            if (copied)
            {
                int offset = _pieces.Length * _pagesPerSequence;
                for (int page = 1; page <= offset; page++) device.CopyKvBlock(_pages, page, page + offset);
                batch.BlockTables = Array.ConvertAll(batch.BlockTables, page => page + offset);
                batch.Slots = Array.ConvertAll(batch.Slots, slot => slot + (offset * BlockSize));
            }
            (Tensor hidden, Tensor query) = Gather(device, workspace, all, _pieces, batch);
            Tensor output = workspace.Take(batch.TokenCount, Width);
            device.RunStep(batch, false, () =>
            {
                device.NormQkvRope(hidden, _weights.Norm, _weights.Bound, _rope, batch, _pages, Layer, query, workspace);
                if (attend) device.PagedAttention(query, batch, _pages, Layer, output, workspace);
            });
            return attend ? output : query;
        }

        private void Project(IBackend device, Workspace workspace, Tensor all, SequencePiece[] pieces, PagedBatch batch)
        {
            (Tensor hidden, Tensor query) = Gather(device, workspace, all, pieces, batch);
            device.RunStep(batch, false, () => device.NormQkvRope(hidden, _weights.Norm, _weights.Bound, _rope, batch, _pages, Layer, query, workspace));
        }

        private (Tensor Hidden, Tensor Query) Gather(IBackend device, Workspace workspace, Tensor all, SequencePiece[] pieces, PagedBatch batch)
        {
            Tensor hidden = workspace.Take(batch.TokenCount, all.Columns);
            for (int s = 0, row = 0; s < pieces.Length; row += pieces[s++].Count)
            {
                if (pieces[s].Count > 0) device.Copy(all.Slice(_firstRows[s] + pieces[s].Start, pieces[s].Count), hidden.Slice(row, pieces[s].Count));
            }
            return (hidden, workspace.Take(batch.TokenCount, Width));
        }

        /// <summary>The step without the sequences that have no token in it.</summary>
        private PagedBatch Batch(SequencePiece[] pieces)
        {
            PagedBatch batch = InstrumentBackend.StepOf(pieces, BlockSize, _pagesPerSequence);
            int[] taking = [.. Enumerable.Range(0, pieces.Length).Where(s => pieces[s].Count > 0)];
            batch.SequenceCount = batch.LogitCount = taking.Length;
            batch.BlockTables = [.. taking.SelectMany(s => batch.BlockTables.Skip(s * _pagesPerSequence).Take(_pagesPerSequence))];
            batch.QueryStarts = [.. taking.Select(s => batch.QueryStarts[s]), batch.TokenCount];
            batch.ContextLengths = [.. taking.Select(s => batch.ContextLengths[s])];
            batch.LogitRows = [.. taking.Select(s => batch.LogitRows[s])];
            return batch;
        }

        /// <summary>Calls <paramref name="check"/>(row of the result, sequence, position, head) for sampled tokens and heads.</summary>
        private void ForEachToken(Action<int, int, int, int> check)
        {
            _projected.Clear();
            var chosen = new List<(int Row, int Sequence, int Position, int Head)>();
            for (int s = 0, row = 0; s < _pieces.Length; row += _pieces[s++].Count)
            {
                int sequence = s, first = row;
                foreach (int t in Samples.Of(_pieces[s].Count, 8, (ulong)s))
                    chosen.AddRange(Samples.Of(_heads.Heads, 2, (ulong)s).Select(head => (first + t, sequence, _pieces[sequence].Start + t, head)));
            }
            Parallel.ForEach(chosen, token => check(token.Row, token.Sequence, token.Position, token.Head));
            _projected.Clear();
        }

        private float[] QueryHead(int sequence, int position, int head) => Projected(_weights.Query, sequence, position, head, true);

        private float[] Projected(WeightTensor weight, int sequence, int position, int head, bool rotate) => _projected.GetOrAdd((weight, sequence, position, head), _ =>
        {
            float[] normed = SelftestReference.RmsNorm(_input.Row(_firstRows[sequence] + position), _weights.NormWeight, RmsNormEpsilon);
            var result = new float[_heads.HeadDim];
            for (int i = 0; i < result.Length; i++) result[i] = (float)SelftestReference.Dot(normed, SelftestReference.Row(weight, (head * result.Length) + i));
            if (rotate) SelftestReference.Rope(result, _rope, position);
            return result;
        });

        private Span<float> Head(float[] rows, int row, int head) => rows.AsSpan((row * Width) + (head * _heads.HeadDim), _heads.HeadDim);
    }

    private IBackend Target => backend;

    private HeadShape AttentionHeads => heads;
}
