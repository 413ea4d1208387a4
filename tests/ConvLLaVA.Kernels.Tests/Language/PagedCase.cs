using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>A sequence's part in a step.</summary>
/// <param name="Id">Decides its keys, values and queries, wherever it stands in a batch and however its prompt is cut.</param>
/// <param name="Queries">Query rows in this step, the last positions of the context.</param>
/// <param name="Context">Positions in the cache, this step's included.</param>
internal sealed record SequenceSpec(int Id, int Queries, int Context);

/// <summary>A batch of sequences over scattered pages, and what attention must make of it. Everything that no token owns is NaN.</summary>
internal sealed class PagedCase
{
    /// <summary>Tokens of a page.</summary>
    public const int PageSize = 16;

    /// <summary>Makes the batch.</summary>
    public PagedCase(Storage storage, int headDim, int heads, int kvHeads, params SequenceSpec[] sequences)
    {
        (Storage, HeadDim, Heads, KvHeads, Sequences) = (storage, headDim, heads, kvHeads, sequences);
        Scale = (float)(1 / Math.Sqrt(headDim));
        QueryStarts = [0, .. sequences.Select((_, s) => sequences.Take(s + 1).Sum(sequence => sequence.Queries))];
        ContextLengths = [.. sequences.Select(sequence => sequence.Context)];
        int[] blocks = [.. sequences.Select(sequence => (sequence.Context + PageSize - 1) / PageSize)];
        MaxBlocks = blocks.Max() + 1;
        int[] pages = [.. Enumerable.Range(1, blocks.Sum())];
        new Random(sequences.Length).Shuffle(pages);
        BlockTables = new int[sequences.Length * MaxBlocks];
        Array.Fill(BlockTables, int.MinValue / 4); // nobody may follow an entry past the context
        int pageElements = kvHeads * PageSize * headDim, next = 0;
        Keys = new float[(pages.Length + 1) * pageElements];
        Values = new float[Keys.Length];
        Array.Fill(Keys, float.NaN);
        Array.Fill(Values, float.NaN);
        Query = new float[QueryStarts[^1] * heads * headDim];
        for (int s = 0; s < sequences.Length; s++)
        {
            for (int b = 0; b < blocks[s]; b++) BlockTables[s * MaxBlocks + b] = pages[next++];
            for (int position = 0; position < sequences[s].Context; position++)
            {
                float[] row = Numbers.Normal(sequences[s].Id * 100_003 + position, (heads + 2 * kvHeads) * headDim, storage);
                for (int h = 0; h < kvHeads; h++)
                {
                    row.AsSpan((heads + h) * headDim, headDim).CopyTo(Keys.AsSpan(At(s, position, h)));
                    row.AsSpan((heads + kvHeads + h) * headDim, headDim).CopyTo(Values.AsSpan(At(s, position, h)));
                }
                int query = position - (sequences[s].Context - sequences[s].Queries);
                if (query >= 0) row.AsSpan(0, heads * headDim).CopyTo(Query.AsSpan((QueryStarts[s] + query) * heads * headDim));
            }
        }
    }

    /// <summary>Storage type of queries, keys, values and results.</summary>
    public Storage Storage { get; }

    /// <summary>Columns of a head.</summary>
    public int HeadDim { get; }

    /// <summary>Query heads.</summary>
    public int Heads { get; }

    /// <summary>Key and value heads.</summary>
    public int KvHeads { get; }

    /// <summary>The sequences.</summary>
    public SequenceSpec[] Sequences { get; }

    /// <summary>Factor of the scores.</summary>
    public float Scale { get; }

    /// <summary>Row length of <see cref="BlockTables"/>.</summary>
    public int MaxBlocks { get; }

    /// <summary>[tokens, heads * head_dim]</summary>
    public float[] Query { get; }

    /// <summary>[pages, kv_heads, page_size, head_dim]</summary>
    public float[] Keys { get; }

    /// <summary>As the keys.</summary>
    public float[] Values { get; }

    /// <summary>[sequences + 1]</summary>
    public int[] QueryStarts { get; }

    /// <summary>[sequences]</summary>
    public int[] ContextLengths { get; }

    /// <summary>[sequences, max_blocks]</summary>
    public int[] BlockTables { get; }

    /// <summary>Holds a head's results against attention in double precision. How far they may be off is made of what must be rounded:
    /// the result; where the weights go through tensor cores, each weight; and fp32's own sums and exponentials.</summary>
    /// <param name="result">Rows of all tokens. [tokens, heads * head_dim]</param>
    /// <param name="sequence">The sequence.</param>
    /// <param name="row">Query row of the sequence in this step.</param>
    /// <param name="head">Query head.</param>
    /// <param name="roundedWeights">Whether the weights are rounded to the storage type.</param>
    public void Check(float[] result, int sequence, int row, int head, bool roundedWeights)
    {
        SequenceSpec spec = Sequences[sequence];
        int keys = spec.Context - spec.Queries + row + 1, from = ((QueryStarts[sequence] + row) * Heads + head) * HeadDim, kvHead = head / (Heads / KvHeads);
        double[] weights = new double[keys];
        double magnitude = 0;
        for (int k = 0; k < keys; k++)
        {
            int at = At(sequence, k, kvHead);
            double dot = 0, absolute = 0;
            for (int d = 0; d < HeadDim; d++)
            {
                double product = (double)Query[from + d] * Keys[at + d];
                dot += product;
                absolute += Math.Abs(product);
            }
            weights[k] = dot * Scale;
            magnitude = Math.Max(magnitude, absolute * Scale);
        }
        double highest = weights.Max(), sum = 0;
        for (int k = 0; k < keys; k++) sum += weights[k] = Math.Exp(weights[k] - highest);
        // Relative error of a weight: the scores' absolute error (fp32 sums of head_dim products), and the exponential's.
        double relative = (HeadDim + 16) * magnitude * Math.ScaleB(1, -24) + Math.ScaleB(1, -20) + keys * Math.ScaleB(1, -24);
        double unit = Storage.HalfUlp(1);
        if (roundedWeights) relative += unit;
        double tiny = roundedWeights && Storage == Storage.F16 ? Math.ScaleB(1, -25) : 0; // weights below half precision's normal numbers
        for (int d = 0; d < HeadDim; d++)
        {
            double expected = 0, mass = 0, bare = 0;
            for (int k = 0; k < keys; k++)
            {
                double value = Values[At(sequence, k, kvHead) + d];
                expected += weights[k] / sum * value;
                mass += weights[k] / sum * Math.Abs(value);
                bare += Math.Abs(value);
            }
            double allowed = 1.01 * (unit * Math.Abs(expected) + relative * mass + tiny * bare / sum) + Math.ScaleB(1, -25), actual = result[from + d];
            if (!(Math.Abs(actual - expected) <= allowed))
            {
                Assert.Fail($"Sequence {sequence} ({spec}), row {row}, head {head}, column {d}: {actual}, but {expected} is expected "
                    + $"(off by {Math.Abs(actual - expected):e2}, allowed {allowed:e2}).");
            }
        }
    }

    /// <summary>The results of one query row.</summary>
    public float[] RowOf(float[] result, int sequence, int row)
    {
        int columns = Heads * HeadDim;
        return result.AsSpan((QueryStarts[sequence] + row) * columns, columns).ToArray();
    }

    /// <summary>Index of the first column of a position's key or value.</summary>
    private int At(int sequence, int position, int kvHead)
        => ((BlockTables[sequence * MaxBlocks + position / PageSize] * KvHeads + kvHead) * PageSize + position % PageSize) * HeadDim;
}
