using System.Runtime.CompilerServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Causal attention over KV pages with online softmax, page after page in context order. Queries of one sequence and
/// head are worked on together so that each page is read once for all of them; what a query computes does not depend on
/// the others.</summary>
internal static unsafe class Attention<V, S> where V : struct where S : struct, ISimd<V>
{
    /// <summary>Queries that share a page while it is in the first-level cache.</summary>
    public const int QueryTile = 12;

    /// <summary>Floats of scratch memory a worker needs.</summary>
    public static int ScratchFloats(int headDim, int blockSize)
        => QueryTile * (2 * Simd.RoundUp(headDim) + Simd.RoundUp(blockSize) + 4);

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
        int scoreStride = Simd.RoundUp(blockSize) + 4;
        float* queries = scratch;                                   // [QueryTile, row], scaled
        float* sums = queries + QueryTile * row;                    // [QueryTile, row]
        float* scores = sums + QueryTile * row;                     // [QueryTile, scoreStride]
        float* highest = stackalloc float[QueryTile];
        float* total = stackalloc float[QueryTile];
        float scale = 1f / MathF.Sqrt(headDim);
        int last = 0;
        for (int t = 0; t < count; t++)
        {
            for (int i = 0; i < row; i++)
            {
                queries[t * row + i] = i < headDim ? query[t * stride + i] * scale : 0f;
                sums[t * row + i] = 0f;
            }
            highest[t] = float.NegativeInfinity;
            total[t] = 0f;
            last = Math.Max(last, positions[t]);
        }
        for (int start = 0; start <= last; start += blockSize)
        {
            int block = blocks[start / blockSize];
            float* keys = kv.Keys(layer, block, kvHead), values = kv.Values(layer, block, kvHead);
            int most = Math.Min(blockSize, last + 1 - start);
            int n = 0;
            for (; n + 4 <= blockSize && n < most; n += 4)
            {
                GemmTile<V, S, Float32Element>.Panel(count, queries, row, (byte*)(keys + (nint)n * row), row * sizeof(float),
                    Simd.Lanes * sizeof(float), row, scores + n, scoreStride, false);
            }
            for (; n < most; n++)
            {
                GemmTile<V, S, Float32Element>.Panel(count, queries, row, (byte*)(keys + (nint)n * row), 0,
                    Simd.Lanes * sizeof(float), row, scores + n, scoreStride, false);
            }
            for (int t = 0; t < count; t++)
            {
                int valid = Math.Min(blockSize, positions[t] + 1 - start);
                if (valid > 0) AddPage(scores + t * scoreStride, valid, values, row, ref highest[t], ref total[t], sums + t * row);
            }
        }
        for (int t = 0; t < count; t++)
        {
            float reciprocal = 1f / total[t];
            for (int i = 0; i < headDim; i++) output[t * stride + i] = sums[t * row + i] * reciprocal;
        }
    }

    // scores [valid rounded up], values [valid, row], sums [row]
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void AddPage(float* scores, int valid, float* values, int row, ref float highest, ref float total, float* sums)
    {
        int padded = Simd.RoundUp(valid);
        for (int i = valid; i < padded; i++) scores[i] = float.NegativeInfinity;
        float max = highest;
        for (int i = 0; i < padded; i += Simd.Lanes) max = MathF.Max(max, S.MaxAcross(S.Load(scores + i)));
        // Changes of the maximum scale what was summed before; most pages change nothing.
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
        float correction = one[0];
        total = MathF.FusedMultiplyAdd(total, correction, S.Sum(partial));
        highest = max;

        V factor = S.Broadcast(correction);
        int d = 0;
        for (; d + 4 * Simd.Lanes <= row; d += 4 * Simd.Lanes)
        {
            V s0 = S.Multiply(S.Load(sums + d), factor), s1 = S.Multiply(S.Load(sums + d + 16), factor);
            V s2 = S.Multiply(S.Load(sums + d + 32), factor), s3 = S.Multiply(S.Load(sums + d + 48), factor);
            float* value = values + d;
            for (int i = 0; i < valid; i++)
            {
                V p = S.Broadcast(scores[i]);
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
            V sum = S.Multiply(S.Load(sums + d), factor);
            for (int i = 0; i < valid; i++) sum = S.MultiplyAdd(S.Broadcast(scores[i]), S.Load(values + (nint)i * row + d), sum);
            S.Store(sums + d, sum);
        }
    }
}
