using System.Runtime.CompilerServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Causal attention over KV pages with online softmax, a fixed number of pages a step in context order. Queries of one sequence and
/// head are worked on together so that each page is read once for all of them; what a query computes does not depend on
/// the others.</summary>
internal static unsafe class Attention<V, S> where V : struct where S : struct, ISimd<V>
{
    /// <summary>Queries that share a page while it is in the first-level cache.</summary>
    public const int QueryTile = 12;

    /// <summary>Positions of a step of the softmax, if whole pages; what a step costs beside its products is shared by so many.</summary>
    private const int StepLength = 128;

    private static int PagesPerStep(int blockSize) => Math.Max(1, StepLength / blockSize);

    private static int ScoreStride(int blockSize) => Simd.RoundUp(PagesPerStep(blockSize) * blockSize) + 4;

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
        int headDim = kv.Layout.HeadDim, row = kv.RowLength, blockSize = kv.Layout.BlockSize;
        int scoreStride = ScoreStride(blockSize), stepLength = PagesPerStep(blockSize) * blockSize;
        float* queries = scratch;                                   // [QueryTile, row], scaled
        float* sums = queries + QueryTile * row;                    // [QueryTile, row]
        float* scores = sums + QueryTile * row;                     // [QueryTile, scoreStride]
        float* highest = stackalloc float[QueryTile];
        float* total = stackalloc float[QueryTile];
        int* valid = stackalloc int[QueryTile];
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
            int most = Math.Min(stepLength, last + 1 - start);
            for (int first = 0; first < most; first += blockSize)
            {
                float* keys = kv.Keys(layer, blocks[(start + first) / blockSize], kvHead);
                Scores(queries, count, row, keys, Math.Min(blockSize, most - first), blockSize, scores + first, scoreStride);
            }
            for (int t = 0; t < count; t++)
            {
                valid[t] = Math.Clamp(positions[t] + 1 - start, 0, stepLength);
                if (valid[t] == 0) continue;
                float correction = Weigh(scores + t * scoreStride, valid[t], ref highest[t], ref total[t]);
                if (correction != 1f) Scale(sums + t * row, row, correction, sums + t * row);
            }
            for (int first = 0; first < most; first += blockSize)
            {
                float* values = kv.Values(layer, blocks[(start + first) / blockSize], kvHead);
                for (int t = 0; t < count;)
                {
                    float* weights = scores + t * scoreStride + first;
                    int done = 0, together = S.HasWideTiles && t + 3 <= count ? 3 : 1;
                    if (together == 3)
                    {
                        done = Math.Clamp(Math.Min(valid[t], Math.Min(valid[t + 1], valid[t + 2])) - first, 0, blockSize);
                        AddValues3(weights, scoreStride, done, values, row, sums + t * row);
                    }
                    // What the causal mask leaves to some of the queries only.
                    for (int end = t + together; t < end; t++, weights += scoreStride)
                        AddValues(weights + done, Math.Clamp(valid[t] - first, 0, blockSize) - done, values + (nint)done * row, row, sums + t * row);
                }
            }
        }
        for (int t = 0; t < count; t++) Scale(sums + t * row, headDim, 1f / total[t], output + t * stride);
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
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static float Weigh(float* scores, int valid, ref float highest, ref float total)
    {
        int padded = Simd.RoundUp(valid);
        for (int i = valid; i < padded; i++) scores[i] = float.NegativeInfinity;
        float max = highest;
        for (int i = 0; i < padded; i += Simd.Lanes) max = MathF.Max(max, S.MaxAcross(S.Load(scores + i)));
        V shift = S.Broadcast(max);
        V partial = S.Zero;
        for (int i = 0; i < padded; i += Simd.Lanes)
        {
            V p = Elementary<V, S>.Exp(S.Subtract(S.Load(scores + i), shift));
            S.Store(scores + i, p);
            partial = S.Add(partial, p);
        }
        float* one = stackalloc float[Simd.Lanes];
        S.Store(one, Elementary<V, S>.Exp(S.Broadcast(highest - max)));
        total = MathF.FusedMultiplyAdd(total, one[0], S.Sum(partial));
        highest = max;
        return one[0];
    }

    // weights [count], values [count, row], sums [row]
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void AddValues(float* weights, int count, float* values, int row, float* sums)
    {
        int d = 0;
        for (; d + 4 * Simd.Lanes <= row; d += 4 * Simd.Lanes)
        {
            V s0 = S.Load(sums + d), s1 = S.Load(sums + d + 16), s2 = S.Load(sums + d + 32), s3 = S.Load(sums + d + 48);
            float* value = values + d;
            for (int i = 0; i < count; i++)
            {
                V p = S.Broadcast(weights[i]);
                s0 = S.MultiplyAdd(p, S.Load(value), s0);
                s1 = S.MultiplyAdd(p, S.Load(value + 16), s1);
                s2 = S.MultiplyAdd(p, S.Load(value + 32), s2);
                s3 = S.MultiplyAdd(p, S.Load(value + 48), s3);
                value += row;
            }
            S.Store(sums + d, s0);
            S.Store(sums + d + 16, s1);
            S.Store(sums + d + 32, s2);
            S.Store(sums + d + 48, s3);
        }
        for (; d < row; d += Simd.Lanes)
        {
            V sum = S.Load(sums + d);
            for (int i = 0; i < count; i++) sum = S.MultiplyAdd(S.Broadcast(weights[i]), S.Load(values + (nint)i * row + d), sum);
            S.Store(sums + d, sum);
        }
    }

    // The same for three queries, so that a value is loaded once for all. weights [3, stride], values [count, row], sums [3, row]
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void AddValues3(float* weights, int stride, int count, float* values, int row, float* sums)
    {
        if (count == 0) return;
        float* more = sums + row, most = more + row;
        int d = 0;
        for (; d + 4 * Simd.Lanes <= row; d += 4 * Simd.Lanes)
        {
            V a0 = S.Load(sums + d), a1 = S.Load(sums + d + 16), a2 = S.Load(sums + d + 32), a3 = S.Load(sums + d + 48);
            V b0 = S.Load(more + d), b1 = S.Load(more + d + 16), b2 = S.Load(more + d + 32), b3 = S.Load(more + d + 48);
            V c0 = S.Load(most + d), c1 = S.Load(most + d + 16), c2 = S.Load(most + d + 32), c3 = S.Load(most + d + 48);
            float* value = values + d;
            float* weight = weights;
            for (int i = 0; i < count; i++)
            {
                V v0 = S.Load(value), v1 = S.Load(value + 16), v2 = S.Load(value + 32), v3 = S.Load(value + 48);
                V p = S.Broadcast(weight[0]);
                a0 = S.MultiplyAdd(p, v0, a0);
                a1 = S.MultiplyAdd(p, v1, a1);
                a2 = S.MultiplyAdd(p, v2, a2);
                a3 = S.MultiplyAdd(p, v3, a3);
                p = S.Broadcast(weight[stride]);
                b0 = S.MultiplyAdd(p, v0, b0);
                b1 = S.MultiplyAdd(p, v1, b1);
                b2 = S.MultiplyAdd(p, v2, b2);
                b3 = S.MultiplyAdd(p, v3, b3);
                p = S.Broadcast(weight[2 * stride]);
                c0 = S.MultiplyAdd(p, v0, c0);
                c1 = S.MultiplyAdd(p, v1, c1);
                c2 = S.MultiplyAdd(p, v2, c2);
                c3 = S.MultiplyAdd(p, v3, c3);
                value += row;
                weight++;
            }
            S.Store(sums + d, a0);
            S.Store(sums + d + 16, a1);
            S.Store(sums + d + 32, a2);
            S.Store(sums + d + 48, a3);
            S.Store(more + d, b0);
            S.Store(more + d + 16, b1);
            S.Store(more + d + 32, b2);
            S.Store(more + d + 48, b3);
            S.Store(most + d, c0);
            S.Store(most + d + 16, c1);
            S.Store(most + d + 32, c2);
            S.Store(most + d + 48, c3);
        }
        for (; d < row; d += Simd.Lanes)
        {
            V a = S.Load(sums + d), b = S.Load(more + d), c = S.Load(most + d);
            for (int i = 0; i < count; i++)
            {
                V v = S.Load(values + (nint)i * row + d);
                a = S.MultiplyAdd(S.Broadcast(weights[i]), v, a);
                b = S.MultiplyAdd(S.Broadcast(weights[stride + i]), v, b);
                c = S.MultiplyAdd(S.Broadcast(weights[2 * stride + i]), v, c);
            }
            S.Store(sums + d, a);
            S.Store(more + d, b);
            S.Store(most + d, c);
        }
    }
}
