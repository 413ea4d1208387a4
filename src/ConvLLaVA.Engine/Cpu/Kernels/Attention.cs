using System.Runtime.CompilerServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Causal attention over KV pages with online softmax, a fixed number of pages a step in context order. Queries of one sequence and
/// head are worked on together so that each page is read once for all of them; what a query computes does not depend on
/// the others.</summary>
internal static unsafe class Attention<V, S> where V : struct where S : struct, ISimd<V>
{
    /// <summary>Queries that read a page together: enough that pages come from far away seldom, few enough that their sums and
    /// weights stay in the second-level cache, or in the first where registers are too few for <see cref="Strip"/> queries.</summary>
    public static int QueryTile => S.HasWideTiles ? 48 : 12;

    /// <summary>Queries of a register tile.</summary>
    private const int Strip = 6;

    /// <summary>Positions of a step of the softmax, if whole pages; what a step costs beside its products is shared by so many.</summary>
    private const int StepLength = 128;

    private static int PagesPerStep(int blockSize) => Math.Max(1, StepLength / blockSize);

    private static int ScoreStride(int blockSize) => Simd.RoundUp(PagesPerStep(blockSize) * blockSize) + Simd.Lanes;

    /// <summary>Floats of scratch memory a worker needs.</summary>
    public static int ScratchFloats(int headDim, int blockSize) => QueryTile * (2 * Simd.RoundUp(headDim) + ScoreStride(blockSize));

    /// <summary>One head of up to <see cref="QueryTile"/> tokens of one sequence.</summary>
    /// <param name="query">First query's head. [count, stride]</param>
    /// <param name="output">First output's head. [count, stride]</param>
    /// <param name="stride">Floats from one token to the next.</param>
    /// <param name="count">Tokens.</param>
    /// <param name="positions">Position of each token. [count]</param>
    /// <param name="blocks">Page numbers of the sequence in context order.</param>
    /// <param name="kv">The pages.</param>
    /// <param name="layer">Decoder layer.</param>
    /// <param name="kvHead">Head of keys and values.</param>
    /// <param name="scratch">As <see cref="ScratchFloats"/> says.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(float* query, float* output, nint stride, int count, ReadOnlySpan<int> positions, ReadOnlySpan<int> blocks,
        KvPages kv, int layer, int kvHead, float* scratch)
    {
        int headDim = kv.Layout.HeadDim, row = kv.RowLength, blockSize = kv.Layout.BlockSize, pageBytes = blockSize * row * sizeof(float);
        int scoreStride = ScoreStride(blockSize), stepLength = PagesPerStep(blockSize) * blockSize;
        float* queries = scratch;                                   // [QueryTile, row], scaled
        float* sums = queries + QueryTile * row;                    // [QueryTile, row]
        float* scores = sums + QueryTile * row;                     // [QueryTile, scoreStride]
        float* highest = stackalloc float[QueryTile];
        float* total = stackalloc float[QueryTile];
        int* valid = stackalloc int[QueryTile];
        nint* pages = stackalloc nint[StepLength];
        float scale = 1f / MathF.Sqrt(headDim);
        int last = 0;
        for (int t = 0; t < count; t++)
        {
            Scale(query + t * stride, headDim, scale, queries + t * row);
            new Span<float>(queries + t * row + headDim, row - headDim).Clear();
            new Span<float>(sums + t * row, row).Clear();
            highest[t] = float.NegativeInfinity;
            total[t] = 0f;
            last = Math.Max(last, positions[t]);
        }
        for (int start = 0; start <= last; start += stepLength)
        {
            int most = Math.Min(stepLength, last + 1 - start), firstBlock = start / blockSize;
            for (int t = 0; t < count; t++) valid[t] = Math.Clamp(positions[t] + 1 - start, 0, stepLength);
            for (int first = 0; first < most; first += blockSize)
            {
                int block = firstBlock + first / blockSize;
                float* keys = kv.Keys(layer, blocks[block], kvHead), values = kv.Values(layer, blocks[block], kvHead);
                pages[first / blockSize] = (nint)values;
                // Pages lie apart, so that the processor foresees none.
                Simd.Prefetch((byte*)values, pageBytes);
                if (start + first + blockSize <= last) Simd.Prefetch((byte*)kv.Keys(layer, blocks[block + 1], kvHead), pageBytes);
                for (int t = 0; t < count; t += Strip)
                {
                    int some = Math.Min(Strip, count - t), seen = Math.Min(blockSize, MostOf(valid + t, some) - first);
                    Scores(queries + t * row, some, row, keys, seen, blockSize, scores + t * scoreStride + first, scoreStride);
                }
            }
            for (int t = 0; t < count; t++)
            {
                if (valid[t] == 0) continue;
                float correction = Weigh(scores + t * scoreStride, valid[t], ref highest[t], ref total[t]);
                if (correction != 1f) Scale(sums + t * row, row, correction, sums + t * row);
            }
            // Without registers for six queries, a page stays in the first-level cache for one after the other.
            int together = S.HasWideTiles ? stepLength : blockSize;
            for (int first = 0; first < most; first += together)
            {
                for (int t = 0; t < count; t += Strip)
                {
                    int end = Math.Min(count, t + Strip), from = first;
                    if (S.HasWideTiles && end == t + Strip)
                    {
                        from = LeastOf(valid + t, Strip);
                        AttentionValues<V, S>.AddSix(scores + t * scoreStride, scoreStride, from, pages, blockSize, row, sums + t * row);
                    }
                    // What the causal mask leaves to some of the queries only.
                    for (int one = t; one < end; one++)
                    {
                        AttentionValues<V, S>.Add(scores + one * scoreStride, from, Math.Min(valid[one], first + together), pages, blockSize, row,
                            sums + one * row);
                    }
                }
            }
        }
        for (int t = 0; t < count; t++) Scale(sums + t * row, headDim, 1f / total[t], output + t * stride);
    }

    private static int MostOf(int* values, int count)
    {
        int most = values[0];
        for (int i = 1; i < count; i++) most = Math.Max(most, values[i]);
        return most;
    }

    private static int LeastOf(int* values, int count)
    {
        int least = values[0];
        for (int i = 1; i < count; i++) least = Math.Min(least, values[i]);
        return least;
    }

    // Both [count]; to may be from.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Scale(float* from, int count, float factor, float* to)
    {
        V f = S.Broadcast(factor);
        int i = 0;
        for (; i + Simd.Lanes <= count; i += Simd.Lanes) S.Store(to + i, S.Multiply(S.Load(from + i), f));
        for (; i < count; i++) to[i] = from[i] * factor;
    }

    // queries [count, row], keys [valid, row] of a page of blockSize, scores [count, scoreStride]
    private static void Scores(float* queries, int count, int row, float* keys, int valid, int blockSize, float* scores, int scoreStride)
    {
        int n = 0;
        for (; n + 4 <= blockSize && n < valid; n += 4)
        {
            GemmTile<V, S, Float32Element>.Panel(count, queries, row, (byte*)(keys + (nint)n * row), row * sizeof(float),
                Simd.Lanes * sizeof(float), row, scores + n, scoreStride, false);
        }
        for (; n < valid; n++)
        {
            GemmTile<V, S, Float32Element>.Panel(count, queries, row, (byte*)(keys + (nint)n * row), 0,
                Simd.Lanes * sizeof(float), row, scores + n, scoreStride, false);
        }
    }

    // Scores to weights. Returns the factor of what was summed before: a new maximum changes it, most steps bring none.
    // scores [valid rounded up]
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private static float Weigh(float* scores, int valid, ref float highest, ref float total)
    {
        int padded = Simd.RoundUp(valid);
        for (int i = valid; i < padded; i++) scores[i] = float.NegativeInfinity;
        V largest = S.Broadcast(highest);
        for (int i = 0; i < padded; i += Simd.Lanes) largest = S.Max(largest, S.Load(scores + i));
        float max = S.MaxAcross(largest);
        V shift = S.Broadcast(max);
        V partial = S.Zero;
        for (int i = 0; i < padded; i += Simd.Lanes)
        {
            V p = Elementary<V, S>.Exp(S.Subtract(S.Load(scores + i), shift));
            S.Store(scores + i, p);
            partial = S.Add(partial, p);
        }
        float correction = S.MaxAcross(Elementary<V, S>.Exp(S.Broadcast(highest - max)));
        total = MathF.FusedMultiplyAdd(total, correction, S.Sum(partial));
        highest = max;
        return correction;
    }
}
