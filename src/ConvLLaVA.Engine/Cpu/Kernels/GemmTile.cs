using System.Runtime.CompilerServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Register tiles of c[i, j] = sum_k a[i, k] * w[j, k]. Lane l of an accumulator sums the k that are l modulo 16, in order,
/// with fused multiply-adds, and the lanes are summed by one fixed tree; every tile shape therefore gives an element the
/// same bits, whichever tile it falls into.</summary>
internal static unsafe class GemmTile<V, S, TW> where V : struct where S : struct, ISimd<V> where TW : struct, IElement
{
    // Never part of a caller, which may be compiled with what the runtime learnt from small products.
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining;

    /// <summary>Any number of rows against four weight rows.</summary>
    /// <param name="rows">Rows of a and c.</param>
    /// <param name="a">[rows, lda]</param>
    /// <param name="lda">Floats from one row of a to the next.</param>
    /// <param name="w">Weight row j, vector v at w + j * rowBytes + v * stepBytes.</param>
    /// <param name="rowBytes">Bytes from one weight row to the next.</param>
    /// <param name="stepBytes">Bytes from 16 elements of a weight row to the next 16.</param>
    /// <param name="k">Length of the sums, a multiple of 16: code for a remainder would make calls, and accumulators that live
    /// across a call are kept in memory by the compiler for the whole loop.</param>
    /// <param name="c">[rows, ldc], four columns are written.</param>
    /// <param name="ldc">Floats from one row of c to the next.</param>
    /// <param name="add">Whether the sums are added to c or replace it.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Panel(int rows, float* a, nint lda, byte* w, nint rowBytes, nint stepBytes, int k, float* c, nint ldc, bool add)
    {
        int i = 0;
        if (S.HasWideTiles)
        {
            for (; i + 6 <= rows; i += 6) Tile6x4(a + i * lda, lda, w, rowBytes, stepBytes, k, c + i * ldc, ldc, add);
            if (i + 4 <= rows)
            {
                Tile4x4(a + i * lda, lda, w, rowBytes, stepBytes, k, c + i * ldc, ldc, add);
                i += 4;
            }
        }
        for (; i + 2 <= rows; i += 2) Tile2x4(a + i * lda, lda, w, rowBytes, stepBytes, k, c + i * ldc, ldc, add);
        if (i < rows) Tile1x4(a + i * lda, w, rowBytes, stepBytes, k, c + i * ldc, add);
    }

    [MethodImpl(Hot)]
    private static void Tile1x4(float* a, byte* w, nint rowBytes, nint stepBytes, int k, float* c, bool add)
    {
        V c00 = S.Zero, c01 = S.Zero, c02 = S.Zero, c03 = S.Zero;
        nint rowBytes3 = 3 * rowBytes;
        byte* next = w + 4 * rowBytes;
        for (int step = k / Simd.Lanes; step > 0; step--)
        {
            if (TW.Streams) Fetch(next, rowBytes, step);
            V w0 = TW.Load<V, S>(w);
            V w1 = TW.Load<V, S>(w + rowBytes);
            V w2 = TW.Load<V, S>(w + 2 * rowBytes);
            V w3 = TW.Load<V, S>(w + rowBytes3);
            V x = S.Load(a);
            c00 = S.MultiplyAdd(x, w0, c00);
            c01 = S.MultiplyAdd(x, w1, c01);
            c02 = S.MultiplyAdd(x, w2, c02);
            c03 = S.MultiplyAdd(x, w3, c03);
            a += Simd.Lanes;
            w += stepBytes;
            next += stepBytes;
        }
        Simd.Put(c, S.Sum4(c00, c01, c02, c03), add);
    }

    // The place that the next four rows have in common with a step of these. The processor fetches ahead of a stream by itself, but begins anew at every
    // row and stops at every page. Of 16-bit weights a step reads half a cache line of each row.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Fetch(byte* next, nint rowBytes, int step)
    {
        if (TW.Size < sizeof(float)) next += (step & 1) * 2 * rowBytes;
        Simd.Prefetch(next);
        Simd.Prefetch(next + rowBytes);
        if (TW.Size < sizeof(float)) return;
        Simd.Prefetch(next + 2 * rowBytes);
        Simd.Prefetch(next + 3 * rowBytes);
    }

    // Two columns at a time: eight 256-bit accumulators are what sixteen registers hold beside the operands.
    private static void Tile2x4(float* a, nint lda, byte* w, nint rowBytes, nint stepBytes, int k, float* c, nint ldc, bool add)
    {
        if (S.HasWideTiles)
        {
            Tile2x4Wide(a, lda, w, rowBytes, stepBytes, k, c, ldc, add);
            return;
        }
        Tile2x2(a, lda, w, rowBytes, stepBytes, k, out V a0, out V a1, out V b0, out V b1);
        Tile2x2(a, lda, w + 2 * rowBytes, rowBytes, stepBytes, k, out V a2, out V a3, out V b2, out V b3);
        S.PutSums2x4(c, ldc, add, a0, a1, a2, a3, b0, b1, b2, b3);
    }

    [MethodImpl(Hot)]
    private static void Tile2x2(float* a, nint lda, byte* w, nint rowBytes, nint stepBytes, int k, out V o00, out V o01, out V o10, out V o11)
    {
        V c00 = S.Zero, c01 = S.Zero, c10 = S.Zero, c11 = S.Zero;
        for (int step = k / Simd.Lanes; step > 0; step--)
        {
            V w0 = TW.Load<V, S>(w), w1 = TW.Load<V, S>(w + rowBytes);
            V x = S.Load(a);
            c00 = S.MultiplyAdd(x, w0, c00);
            c01 = S.MultiplyAdd(x, w1, c01);
            x = S.Load(a + lda);
            c10 = S.MultiplyAdd(x, w0, c10);
            c11 = S.MultiplyAdd(x, w1, c11);
            a += Simd.Lanes;
            w += stepBytes;
        }
        o00 = c00;
        o01 = c01;
        o10 = c10;
        o11 = c11;
    }

    [MethodImpl(Hot)]
    private static void Tile2x4Wide(float* a, nint lda, byte* w, nint rowBytes, nint stepBytes, int k, float* c, nint ldc, bool add)
    {
        V c00 = S.Zero, c01 = S.Zero, c02 = S.Zero, c03 = S.Zero;
        V c10 = S.Zero, c11 = S.Zero, c12 = S.Zero, c13 = S.Zero;
        nint rowBytes3 = 3 * rowBytes;
        byte* next = w + 4 * rowBytes;
        for (int step = k / Simd.Lanes; step > 0; step--)
        {
            if (TW.Streams) Fetch(next, rowBytes, step);
            V w0 = TW.Load<V, S>(w);
            V w1 = TW.Load<V, S>(w + rowBytes);
            V w2 = TW.Load<V, S>(w + 2 * rowBytes);
            V w3 = TW.Load<V, S>(w + rowBytes3);
            V x = S.Load(a);
            c00 = S.MultiplyAdd(x, w0, c00);
            c01 = S.MultiplyAdd(x, w1, c01);
            c02 = S.MultiplyAdd(x, w2, c02);
            c03 = S.MultiplyAdd(x, w3, c03);
            x = S.Load(a + lda);
            c10 = S.MultiplyAdd(x, w0, c10);
            c11 = S.MultiplyAdd(x, w1, c11);
            c12 = S.MultiplyAdd(x, w2, c12);
            c13 = S.MultiplyAdd(x, w3, c13);
            a += Simd.Lanes;
            w += stepBytes;
            next += stepBytes;
        }
        S.PutSums2x4(c, ldc, add, c00, c01, c02, c03, c10, c11, c12, c13);
    }

    [MethodImpl(Hot)]
    private static void Tile4x4(float* a, nint lda, byte* w, nint rowBytes, nint stepBytes, int k, float* c, nint ldc, bool add)
    {
        V c00 = S.Zero, c01 = S.Zero, c02 = S.Zero, c03 = S.Zero;
        V c10 = S.Zero, c11 = S.Zero, c12 = S.Zero, c13 = S.Zero;
        V c20 = S.Zero, c21 = S.Zero, c22 = S.Zero, c23 = S.Zero;
        V c30 = S.Zero, c31 = S.Zero, c32 = S.Zero, c33 = S.Zero;
        nint rowBytes3 = 3 * rowBytes;
        float* b = a + 3 * lda;
        byte* next = w + 4 * rowBytes;
        for (int step = k / Simd.Lanes; step > 0; step--)
        {
            if (TW.Streams) Fetch(next, rowBytes, step);
            V w0 = TW.Load<V, S>(w);
            V w1 = TW.Load<V, S>(w + rowBytes);
            V w2 = TW.Load<V, S>(w + 2 * rowBytes);
            V w3 = TW.Load<V, S>(w + rowBytes3);
            V x = S.Load(a);
            c00 = S.MultiplyAdd(x, w0, c00);
            c01 = S.MultiplyAdd(x, w1, c01);
            c02 = S.MultiplyAdd(x, w2, c02);
            c03 = S.MultiplyAdd(x, w3, c03);
            x = S.Load(a + lda);
            c10 = S.MultiplyAdd(x, w0, c10);
            c11 = S.MultiplyAdd(x, w1, c11);
            c12 = S.MultiplyAdd(x, w2, c12);
            c13 = S.MultiplyAdd(x, w3, c13);
            x = S.Load(a + 2 * lda);
            c20 = S.MultiplyAdd(x, w0, c20);
            c21 = S.MultiplyAdd(x, w1, c21);
            c22 = S.MultiplyAdd(x, w2, c22);
            c23 = S.MultiplyAdd(x, w3, c23);
            x = S.Load(b);
            c30 = S.MultiplyAdd(x, w0, c30);
            c31 = S.MultiplyAdd(x, w1, c31);
            c32 = S.MultiplyAdd(x, w2, c32);
            c33 = S.MultiplyAdd(x, w3, c33);
            a += Simd.Lanes;
            b += Simd.Lanes;
            w += stepBytes;
            next += stepBytes;
        }
        S.PutSums4x4(c, ldc, add, c00, c01, c02, c03, c10, c11, c12, c13, c20, c21, c22, c23, c30, c31, c32, c33);
    }

    [MethodImpl(Hot)]
    private static void Tile6x4(float* a, nint lda, byte* w, nint rowBytes, nint stepBytes, int k, float* c, nint ldc, bool add)
    {
        V c00 = S.Zero, c01 = S.Zero, c02 = S.Zero, c03 = S.Zero;
        V c10 = S.Zero, c11 = S.Zero, c12 = S.Zero, c13 = S.Zero;
        V c20 = S.Zero, c21 = S.Zero, c22 = S.Zero, c23 = S.Zero;
        V c30 = S.Zero, c31 = S.Zero, c32 = S.Zero, c33 = S.Zero;
        V c40 = S.Zero, c41 = S.Zero, c42 = S.Zero, c43 = S.Zero;
        V c50 = S.Zero, c51 = S.Zero, c52 = S.Zero, c53 = S.Zero;
        nint rowBytes3 = 3 * rowBytes;
        float* b = a + 3 * lda;
        byte* next = w + 4 * rowBytes;
        for (int step = k / Simd.Lanes; step > 0; step--)
        {
            if (TW.Streams) Fetch(next, rowBytes, step);
            V w0 = TW.Load<V, S>(w);
            V w1 = TW.Load<V, S>(w + rowBytes);
            V w2 = TW.Load<V, S>(w + 2 * rowBytes);
            V w3 = TW.Load<V, S>(w + rowBytes3);
            V x = S.Load(a);
            c00 = S.MultiplyAdd(x, w0, c00);
            c01 = S.MultiplyAdd(x, w1, c01);
            c02 = S.MultiplyAdd(x, w2, c02);
            c03 = S.MultiplyAdd(x, w3, c03);
            x = S.Load(a + lda);
            c10 = S.MultiplyAdd(x, w0, c10);
            c11 = S.MultiplyAdd(x, w1, c11);
            c12 = S.MultiplyAdd(x, w2, c12);
            c13 = S.MultiplyAdd(x, w3, c13);
            x = S.Load(a + 2 * lda);
            c20 = S.MultiplyAdd(x, w0, c20);
            c21 = S.MultiplyAdd(x, w1, c21);
            c22 = S.MultiplyAdd(x, w2, c22);
            c23 = S.MultiplyAdd(x, w3, c23);
            x = S.Load(b);
            c30 = S.MultiplyAdd(x, w0, c30);
            c31 = S.MultiplyAdd(x, w1, c31);
            c32 = S.MultiplyAdd(x, w2, c32);
            c33 = S.MultiplyAdd(x, w3, c33);
            x = S.Load(b + lda);
            c40 = S.MultiplyAdd(x, w0, c40);
            c41 = S.MultiplyAdd(x, w1, c41);
            c42 = S.MultiplyAdd(x, w2, c42);
            c43 = S.MultiplyAdd(x, w3, c43);
            x = S.Load(b + 2 * lda);
            c50 = S.MultiplyAdd(x, w0, c50);
            c51 = S.MultiplyAdd(x, w1, c51);
            c52 = S.MultiplyAdd(x, w2, c52);
            c53 = S.MultiplyAdd(x, w3, c53);
            a += Simd.Lanes;
            b += Simd.Lanes;
            w += stepBytes;
            next += stepBytes;
        }
        S.PutSums4x4(c, ldc, add, c00, c01, c02, c03, c10, c11, c12, c13, c20, c21, c22, c23, c30, c31, c32, c33);
        S.PutSums2x4(c + 4 * ldc, ldc, add, c40, c41, c42, c43, c50, c51, c52, c53);
    }
}
