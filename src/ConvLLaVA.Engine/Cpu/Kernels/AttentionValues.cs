using System.Runtime.CompilerServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Weighted sums of the values in some pages. Each adds position after position with fused multiply-adds, whatever tile it is
/// computed in.</summary>
internal static unsafe class AttentionValues<V, S> where V : struct where S : struct, ISimd<V>
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining;

    /// <summary>Adds positions [from, end) to the sums of one query.</summary>
    /// <param name="weights">[end]</param>
    /// <param name="from">First position.</param>
    /// <param name="end">Behind the last.</param>
    /// <param name="pages">Values of each page, [block_size, row].</param>
    /// <param name="blockSize">Positions of a page.</param>
    /// <param name="row">Floats of a position, whole vectors.</param>
    /// <param name="sums">[row]</param>
    [MethodImpl(Hot)]
    public static void Add(float* weights, int from, int end, nint* pages, int blockSize, int row, float* sums)
    {
        for (int i = from; i < end;)
        {
            int offset = i % blockSize, count = Math.Min(blockSize - offset, end - i);
            AddPage(weights + i, count, (float*)pages[i / blockSize] + (nint)offset * row, row, sums);
            i += count;
        }
    }

    // weights [count], values [count, row], sums [row]
    [MethodImpl(Hot)]
    private static void AddPage(float* weights, int count, float* values, int row, float* sums)
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

    /// <summary>Adds the first <paramref name="count"/> positions to the sums of six queries, each value loaded once for all.</summary>
    /// <param name="weights">[6, stride]</param>
    /// <param name="stride">Floats from one query's weights to the next.</param>
    /// <param name="count">Positions.</param>
    /// <param name="pages">Values of each page, [block_size, row].</param>
    /// <param name="blockSize">Positions of a page.</param>
    /// <param name="row">Floats of a position, whole vectors.</param>
    /// <param name="sums">[6, row]</param>
    public static void AddSix(float* weights, nint stride, int count, nint* pages, int blockSize, nint row, float* sums)
    {
        nint d = 0;
        for (; d + 4 * Simd.Lanes <= row; d += 4 * Simd.Lanes) AddTile(weights, stride, count, pages, blockSize, d, row, sums + d);
        for (; d < row; d += Simd.Lanes)
        {
            for (int query = 0; query < 6; query++) AddColumn(weights + query * stride, count, pages, blockSize, d, row, sums + query * row + d);
        }
    }

    // One vector of one query. weights [count], sums [16]
    [MethodImpl(Hot)]
    private static void AddColumn(float* weights, int count, nint* pages, int blockSize, nint d, nint row, float* sums)
    {
        V sum = S.Load(sums);
        for (int left = count; left > 0; left -= blockSize)
        {
            float* value = (float*)*pages++ + d;
            for (int i = Math.Min(left, blockSize); i > 0; i--, value += row) sum = S.MultiplyAdd(S.Broadcast(*weights++), S.Load(value), sum);
        }
        S.Store(sums, sum);
    }

    // Four vectors of six queries. weights [6, stride], sums [6, row]
    [MethodImpl(Hot)]
    private static void AddTile(float* weights, nint stride, int count, nint* pages, int blockSize, nint d, nint row, float* sums)
    {
        float* lower = sums + 3 * row;
        V a0 = S.Load(sums), a1 = S.Load(sums + 16), a2 = S.Load(sums + 32), a3 = S.Load(sums + 48);
        V b0 = S.Load(sums + row), b1 = S.Load(sums + row + 16), b2 = S.Load(sums + row + 32), b3 = S.Load(sums + row + 48);
        V c0 = S.Load(sums + 2 * row), c1 = S.Load(sums + 2 * row + 16), c2 = S.Load(sums + 2 * row + 32), c3 = S.Load(sums + 2 * row + 48);
        V d0 = S.Load(lower), d1 = S.Load(lower + 16), d2 = S.Load(lower + 32), d3 = S.Load(lower + 48);
        V e0 = S.Load(lower + row), e1 = S.Load(lower + row + 16), e2 = S.Load(lower + row + 32), e3 = S.Load(lower + row + 48);
        V f0 = S.Load(lower + 2 * row), f1 = S.Load(lower + 2 * row + 16), f2 = S.Load(lower + 2 * row + 32), f3 = S.Load(lower + 2 * row + 48);
        float* more = weights + 3 * stride;
        for (int left = count; left > 0; left -= blockSize)
        {
            float* value = (float*)*pages++ + d;
            for (int i = Math.Min(left, blockSize); i > 0; i--)
            {
                V v0 = S.Load(value), v1 = S.Load(value + 16), v2 = S.Load(value + 32), v3 = S.Load(value + 48);
                V p = S.Broadcast(*weights);
                a0 = S.MultiplyAdd(p, v0, a0);
                a1 = S.MultiplyAdd(p, v1, a1);
                a2 = S.MultiplyAdd(p, v2, a2);
                a3 = S.MultiplyAdd(p, v3, a3);
                p = S.Broadcast(weights[stride]);
                b0 = S.MultiplyAdd(p, v0, b0);
                b1 = S.MultiplyAdd(p, v1, b1);
                b2 = S.MultiplyAdd(p, v2, b2);
                b3 = S.MultiplyAdd(p, v3, b3);
                p = S.Broadcast(weights[2 * stride]);
                c0 = S.MultiplyAdd(p, v0, c0);
                c1 = S.MultiplyAdd(p, v1, c1);
                c2 = S.MultiplyAdd(p, v2, c2);
                c3 = S.MultiplyAdd(p, v3, c3);
                p = S.Broadcast(*more);
                d0 = S.MultiplyAdd(p, v0, d0);
                d1 = S.MultiplyAdd(p, v1, d1);
                d2 = S.MultiplyAdd(p, v2, d2);
                d3 = S.MultiplyAdd(p, v3, d3);
                p = S.Broadcast(more[stride]);
                e0 = S.MultiplyAdd(p, v0, e0);
                e1 = S.MultiplyAdd(p, v1, e1);
                e2 = S.MultiplyAdd(p, v2, e2);
                e3 = S.MultiplyAdd(p, v3, e3);
                p = S.Broadcast(more[2 * stride]);
                f0 = S.MultiplyAdd(p, v0, f0);
                f1 = S.MultiplyAdd(p, v1, f1);
                f2 = S.MultiplyAdd(p, v2, f2);
                f3 = S.MultiplyAdd(p, v3, f3);
                value += row;
                weights++;
                more++;
            }
        }
        S.Store(sums, a0);
        S.Store(sums + 16, a1);
        S.Store(sums + 32, a2);
        S.Store(sums + 48, a3);
        S.Store(sums + row, b0);
        S.Store(sums + row + 16, b1);
        S.Store(sums + row + 32, b2);
        S.Store(sums + row + 48, b3);
        S.Store(sums + 2 * row, c0);
        S.Store(sums + 2 * row + 16, c1);
        S.Store(sums + 2 * row + 32, c2);
        S.Store(sums + 2 * row + 48, c3);
        S.Store(lower, d0);
        S.Store(lower + 16, d1);
        S.Store(lower + 32, d2);
        S.Store(lower + 48, d3);
        S.Store(lower + row, e0);
        S.Store(lower + row + 16, e1);
        S.Store(lower + row + 32, e2);
        S.Store(lower + row + 48, e3);
        S.Store(lower + 2 * row, f0);
        S.Store(lower + 2 * row + 16, f1);
        S.Store(lower + 2 * row + 32, f2);
        S.Store(lower + 2 * row + 48, f3);
    }
}
