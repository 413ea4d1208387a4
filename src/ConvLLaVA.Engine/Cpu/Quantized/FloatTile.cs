using System.Runtime.CompilerServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Products of activations in floats and weights that are widened in registers. Even and odd columns have sums of their own, so that
/// additions need not wait for each other; every tile adds in the same order.</summary>
internal static unsafe class FloatTile<V, S, I, Q> where V : struct where S : struct, ISimd<V> where I : struct where Q : struct, IIntegers<I, V>
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;

    /// <summary>As many tokens from <paramref name="row"/> on as one tile takes; returns their number. sums [tokens, 32].</summary>
    public static int Run(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        bool wide = x.Rows - row >= 4 && S.HasWideTiles;
        if (w.Kind == QuantKind.Float8)
        {
            if (wide) Float8Tile4(w, x, row, sums);
            else Float8Tile1(w, x, row, sums);
        }
        else
        {
            if (wide) Nf4Tile4(w, x, row, sums);
            else Nf4Tile1(w, x, row, sums);
        }
        return wide ? 4 : 1;
    }

    private static float* Row(in QuantInput x, int row) => x.Copies ? (float*)x.Codes + (row * x.Stride) : x.Source + (row * x.SourceStride);

    /// <summary>One token against 32 rows of 8-bit floats.</summary>
    [MethodImpl(Hot)]
    private static void Float8Tile1(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        byte* w0 = w.Codes0, w1 = w.Codes1;
        float* x0 = Row(x, row);
        V e0a = S.Zero, o0a = S.Zero, e0b = S.Zero, o0b = S.Zero;
        for (nint k = 0; k < x.Stride; k += 2)
        {
            V a = Q.LoadFloat8(w0), b = Q.LoadFloat8(w1), c = Q.LoadFloat8(w0 + 16), d = Q.LoadFloat8(w1 + 16);
            w0 += 32;
            w1 += 32;
            V p = S.Broadcast(x0[k]), q = S.Broadcast(x0[k + 1]);
            e0a = S.MultiplyAdd(a, p, e0a);
            e0b = S.MultiplyAdd(b, p, e0b);
            o0a = S.MultiplyAdd(c, q, o0a);
            o0b = S.MultiplyAdd(d, q, o0b);
        }
        S.Store(sums, S.Add(e0a, o0a));
        S.Store(sums + 16, S.Add(e0b, o0b));
    }

    /// <summary>Four tokens against 32 rows of 8-bit floats.</summary>
    [MethodImpl(Hot)]
    private static void Float8Tile4(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        byte* w0 = w.Codes0, w1 = w.Codes1;
        float* x0 = Row(x, row);
        float* x1 = Row(x, row + 1);
        float* x2 = Row(x, row + 2);
        float* x3 = Row(x, row + 3);
        V e0a = S.Zero, o0a = S.Zero, e0b = S.Zero, o0b = S.Zero, e1a = S.Zero, o1a = S.Zero, e1b = S.Zero, o1b = S.Zero, e2a = S.Zero, o2a = S.Zero, e2b = S.Zero, o2b = S.Zero, e3a = S.Zero, o3a = S.Zero, e3b = S.Zero, o3b = S.Zero;
        for (nint k = 0; k < x.Stride; k += 2)
        {
            V a = Q.LoadFloat8(w0), b = Q.LoadFloat8(w1), c = Q.LoadFloat8(w0 + 16), d = Q.LoadFloat8(w1 + 16);
            w0 += 32;
            w1 += 32;
            V p = S.Broadcast(x0[k]), q = S.Broadcast(x0[k + 1]);
            e0a = S.MultiplyAdd(a, p, e0a);
            e0b = S.MultiplyAdd(b, p, e0b);
            o0a = S.MultiplyAdd(c, q, o0a);
            o0b = S.MultiplyAdd(d, q, o0b);
            p = S.Broadcast(x1[k]);
            q = S.Broadcast(x1[k + 1]);
            e1a = S.MultiplyAdd(a, p, e1a);
            e1b = S.MultiplyAdd(b, p, e1b);
            o1a = S.MultiplyAdd(c, q, o1a);
            o1b = S.MultiplyAdd(d, q, o1b);
            p = S.Broadcast(x2[k]);
            q = S.Broadcast(x2[k + 1]);
            e2a = S.MultiplyAdd(a, p, e2a);
            e2b = S.MultiplyAdd(b, p, e2b);
            o2a = S.MultiplyAdd(c, q, o2a);
            o2b = S.MultiplyAdd(d, q, o2b);
            p = S.Broadcast(x3[k]);
            q = S.Broadcast(x3[k + 1]);
            e3a = S.MultiplyAdd(a, p, e3a);
            e3b = S.MultiplyAdd(b, p, e3b);
            o3a = S.MultiplyAdd(c, q, o3a);
            o3b = S.MultiplyAdd(d, q, o3b);
        }
        S.Store(sums, S.Add(e0a, o0a));
        S.Store(sums + 16, S.Add(e0b, o0b));
        S.Store(sums + 32, S.Add(e1a, o1a));
        S.Store(sums + 48, S.Add(e1b, o1b));
        S.Store(sums + 64, S.Add(e2a, o2a));
        S.Store(sums + 80, S.Add(e2b, o2b));
        S.Store(sums + 96, S.Add(e3a, o3a));
        S.Store(sums + 112, S.Add(e3b, o3b));
    }

    /// <summary>One token against 32 rows of nf4.</summary>
    [MethodImpl(Hot)]
    private static void Nf4Tile1(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        byte* w0 = w.Codes0, w1 = w.Codes1;
        float* x0 = Row(x, row);
        V table = S.Load(w.Table);
        V f0a = S.Zero, f0b = S.Zero;
        for (int block = 0; block < x.Stride / 64; block++)
        {
            V e0a = S.Zero, o0a = S.Zero, e0b = S.Zero, o0b = S.Zero;
            for (int k = 0; k < 64; k += 2)
            {
                I u = Q.LoadBytes(w0), v = Q.LoadBytes(w1);
                V a = Q.Look(table, u), b = Q.Look(table, v), c = Q.Look(table, Q.ShiftRight4(u)), d = Q.Look(table, Q.ShiftRight4(v));
                w0 += 16;
                w1 += 16;
                V p = S.Broadcast(x0[k]), q = S.Broadcast(x0[k + 1]);
                e0a = S.MultiplyAdd(a, p, e0a);
                e0b = S.MultiplyAdd(b, p, e0b);
                o0a = S.MultiplyAdd(c, q, o0a);
                o0b = S.MultiplyAdd(d, q, o0b);
            }
            x0 += 64;
            w.SingleScales<V, S>(block, out V sa, out V sb);
            f0a = S.MultiplyAdd(S.Add(e0a, o0a), sa, f0a);
            f0b = S.MultiplyAdd(S.Add(e0b, o0b), sb, f0b);
        }
        S.Store(sums, f0a);
        S.Store(sums + 16, f0b);
    }

    /// <summary>Four tokens against 32 rows of nf4.</summary>
    [MethodImpl(Hot)]
    private static void Nf4Tile4(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        byte* w0 = w.Codes0, w1 = w.Codes1;
        float* x0 = Row(x, row);
        float* x1 = Row(x, row + 1);
        float* x2 = Row(x, row + 2);
        float* x3 = Row(x, row + 3);
        V table = S.Load(w.Table);
        V f0a = S.Zero, f0b = S.Zero, f1a = S.Zero, f1b = S.Zero, f2a = S.Zero, f2b = S.Zero, f3a = S.Zero, f3b = S.Zero;
        for (int block = 0; block < x.Stride / 64; block++)
        {
            V e0a = S.Zero, o0a = S.Zero, e0b = S.Zero, o0b = S.Zero, e1a = S.Zero, o1a = S.Zero, e1b = S.Zero, o1b = S.Zero, e2a = S.Zero, o2a = S.Zero, e2b = S.Zero, o2b = S.Zero, e3a = S.Zero, o3a = S.Zero, e3b = S.Zero, o3b = S.Zero;
            for (int k = 0; k < 64; k += 2)
            {
                I u = Q.LoadBytes(w0), v = Q.LoadBytes(w1);
                V a = Q.Look(table, u), b = Q.Look(table, v), c = Q.Look(table, Q.ShiftRight4(u)), d = Q.Look(table, Q.ShiftRight4(v));
                w0 += 16;
                w1 += 16;
                V p = S.Broadcast(x0[k]), q = S.Broadcast(x0[k + 1]);
                e0a = S.MultiplyAdd(a, p, e0a);
                e0b = S.MultiplyAdd(b, p, e0b);
                o0a = S.MultiplyAdd(c, q, o0a);
                o0b = S.MultiplyAdd(d, q, o0b);
                p = S.Broadcast(x1[k]);
                q = S.Broadcast(x1[k + 1]);
                e1a = S.MultiplyAdd(a, p, e1a);
                e1b = S.MultiplyAdd(b, p, e1b);
                o1a = S.MultiplyAdd(c, q, o1a);
                o1b = S.MultiplyAdd(d, q, o1b);
                p = S.Broadcast(x2[k]);
                q = S.Broadcast(x2[k + 1]);
                e2a = S.MultiplyAdd(a, p, e2a);
                e2b = S.MultiplyAdd(b, p, e2b);
                o2a = S.MultiplyAdd(c, q, o2a);
                o2b = S.MultiplyAdd(d, q, o2b);
                p = S.Broadcast(x3[k]);
                q = S.Broadcast(x3[k + 1]);
                e3a = S.MultiplyAdd(a, p, e3a);
                e3b = S.MultiplyAdd(b, p, e3b);
                o3a = S.MultiplyAdd(c, q, o3a);
                o3b = S.MultiplyAdd(d, q, o3b);
            }
            x0 += 64;
            x1 += 64;
            x2 += 64;
            x3 += 64;
            w.SingleScales<V, S>(block, out V sa, out V sb);
            f0a = S.MultiplyAdd(S.Add(e0a, o0a), sa, f0a);
            f0b = S.MultiplyAdd(S.Add(e0b, o0b), sb, f0b);
            f1a = S.MultiplyAdd(S.Add(e1a, o1a), sa, f1a);
            f1b = S.MultiplyAdd(S.Add(e1b, o1b), sb, f1b);
            f2a = S.MultiplyAdd(S.Add(e2a, o2a), sa, f2a);
            f2b = S.MultiplyAdd(S.Add(e2b, o2b), sb, f2b);
            f3a = S.MultiplyAdd(S.Add(e3a, o3a), sa, f3a);
            f3b = S.MultiplyAdd(S.Add(e3b, o3b), sb, f3b);
        }
        S.Store(sums, f0a);
        S.Store(sums + 16, f0b);
        S.Store(sums + 32, f1a);
        S.Store(sums + 48, f1b);
        S.Store(sums + 64, f2a);
        S.Store(sums + 80, f2b);
        S.Store(sums + 96, f3a);
        S.Store(sums + 112, f3b);
    }
}
