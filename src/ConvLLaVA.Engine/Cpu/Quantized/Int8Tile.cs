using System.Runtime.CompilerServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Products of 8-bit weights and 16-bit activations: c[t, n] = sum over groups g of scale[n, g] * scale[t, g] * (exact integer sum).
/// Widened pairs go through the 16-bit multiply-add, whose sums cannot overflow, unlike those of its 8-bit sister; on processors
/// where both run on the same ports it is no slower. Groups are added in order with fused multiply-adds, whatever the tile.</summary>
internal static unsafe class Int8Tile<V, S, I, Q> where V : struct where S : struct, ISimd<V> where I : struct where Q : struct, IIntegers<I, V>
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;
    private const int Ahead = 2048; // bytes of codes fetched before they are needed

    /// <summary>Most tokens of a tile.</summary>
    public const int MostTokens = 6;

    /// <summary>As many tokens from <paramref name="row"/> on as one tile takes; returns their number. sums [tokens, 32].</summary>
    public static int Run(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        int left = x.Rows - row;
        if (left >= 6 && S.HasWideTiles)
        {
            Tile6(w, x, row, sums);
            return 6;
        }
        if (left >= 2 && S.HasWideTiles)
        {
            Tile2(w, x, row, sums);
            return 2;
        }
        Tile1(w, x, row, sums);
        return 1;
    }

    /// <summary>One token against 32 rows.</summary>
    [MethodImpl(Hot)]
    private static void Tile1(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        sbyte* w0 = (sbyte*)w.Codes0, w1 = (sbyte*)w.Codes1;
        short* x0 = (short*)x.Codes + (row * x.Stride);
        float* scales = x.Scales + ((nint)row * x.Groups);
        int groups = x.Groups;
        V one = S.Broadcast(1f);
        V f0a = S.Zero, f0b = S.Zero;
        for (int g = 0; g < groups; g++)
        {
            I i0a = Q.Zero, i0b = Q.Zero;
            QuantPanel.Prefetch(w0 + Ahead, 512);
            QuantPanel.Prefetch(w1 + Ahead, 512);
            for (int k = 0; k < 32; k += 2)
            {
                I a = Q.LoadPairs(w0), b = Q.LoadPairs(w1);
                w0 += 32;
                w1 += 32;
                I p = Q.BroadcastPair(x0 + k);
                i0a = Q.Add(i0a, Q.MultiplyPairs(a, p));
                i0b = Q.Add(i0b, Q.MultiplyPairs(b, p));
            }
            x0 += 32;
            V sa = one, sb = one;
            if (w.HasHalfScales) w.HalfScales<V, S>(g, out sa, out sb);
            V s = S.Broadcast(scales[g]);
            f0a = S.MultiplyAdd(Q.ToFloat(i0a), S.Multiply(sa, s), f0a);
            f0b = S.MultiplyAdd(Q.ToFloat(i0b), S.Multiply(sb, s), f0b);
        }
        S.Store(sums, f0a);
        S.Store(sums + 16, f0b);
    }

    /// <summary>Two tokens against 32 rows.</summary>
    [MethodImpl(Hot)]
    private static void Tile2(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        sbyte* w0 = (sbyte*)w.Codes0, w1 = (sbyte*)w.Codes1;
        short* x0 = (short*)x.Codes + (row * x.Stride);
        short* x1 = x0 + x.Stride;
        float* scales = x.Scales + ((nint)row * x.Groups);
        int groups = x.Groups;
        V one = S.Broadcast(1f);
        V f0a = S.Zero, f0b = S.Zero, f1a = S.Zero, f1b = S.Zero;
        for (int g = 0; g < groups; g++)
        {
            I i0a = Q.Zero, i0b = Q.Zero, i1a = Q.Zero, i1b = Q.Zero;
            for (int k = 0; k < 32; k += 2)
            {
                I a = Q.LoadPairs(w0), b = Q.LoadPairs(w1);
                w0 += 32;
                w1 += 32;
                I p = Q.BroadcastPair(x0 + k);
                i0a = Q.Add(i0a, Q.MultiplyPairs(a, p));
                i0b = Q.Add(i0b, Q.MultiplyPairs(b, p));
                p = Q.BroadcastPair(x1 + k);
                i1a = Q.Add(i1a, Q.MultiplyPairs(a, p));
                i1b = Q.Add(i1b, Q.MultiplyPairs(b, p));
            }
            x0 += 32;
            x1 += 32;
            V sa = one, sb = one;
            if (w.HasHalfScales) w.HalfScales<V, S>(g, out sa, out sb);
            V s = S.Broadcast(scales[g]);
            f0a = S.MultiplyAdd(Q.ToFloat(i0a), S.Multiply(sa, s), f0a);
            f0b = S.MultiplyAdd(Q.ToFloat(i0b), S.Multiply(sb, s), f0b);
            s = S.Broadcast(scales[groups + g]);
            f1a = S.MultiplyAdd(Q.ToFloat(i1a), S.Multiply(sa, s), f1a);
            f1b = S.MultiplyAdd(Q.ToFloat(i1b), S.Multiply(sb, s), f1b);
        }
        S.Store(sums, f0a);
        S.Store(sums + 16, f0b);
        S.Store(sums + 32, f1a);
        S.Store(sums + 48, f1b);
    }

    /// <summary>Six tokens against 32 rows.</summary>
    [MethodImpl(Hot)]
    private static void Tile6(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        sbyte* w0 = (sbyte*)w.Codes0, w1 = (sbyte*)w.Codes1;
        short* x0 = (short*)x.Codes + (row * x.Stride);
        short* x1 = x0 + x.Stride;
        short* x2 = x1 + x.Stride;
        short* x3 = x2 + x.Stride;
        short* x4 = x3 + x.Stride;
        short* x5 = x4 + x.Stride;
        float* scales = x.Scales + ((nint)row * x.Groups);
        int groups = x.Groups;
        V one = S.Broadcast(1f);
        V f0a = S.Zero, f0b = S.Zero, f1a = S.Zero, f1b = S.Zero, f2a = S.Zero, f2b = S.Zero, f3a = S.Zero, f3b = S.Zero, f4a = S.Zero, f4b = S.Zero, f5a = S.Zero, f5b = S.Zero;
        for (int g = 0; g < groups; g++)
        {
            I i0a = Q.Zero, i0b = Q.Zero, i1a = Q.Zero, i1b = Q.Zero, i2a = Q.Zero, i2b = Q.Zero, i3a = Q.Zero, i3b = Q.Zero, i4a = Q.Zero, i4b = Q.Zero, i5a = Q.Zero, i5b = Q.Zero;
            for (int k = 0; k < 32; k += 2)
            {
                I a = Q.LoadPairs(w0), b = Q.LoadPairs(w1);
                w0 += 32;
                w1 += 32;
                I p = Q.BroadcastPair(x0 + k);
                i0a = Q.Add(i0a, Q.MultiplyPairs(a, p));
                i0b = Q.Add(i0b, Q.MultiplyPairs(b, p));
                p = Q.BroadcastPair(x1 + k);
                i1a = Q.Add(i1a, Q.MultiplyPairs(a, p));
                i1b = Q.Add(i1b, Q.MultiplyPairs(b, p));
                p = Q.BroadcastPair(x2 + k);
                i2a = Q.Add(i2a, Q.MultiplyPairs(a, p));
                i2b = Q.Add(i2b, Q.MultiplyPairs(b, p));
                p = Q.BroadcastPair(x3 + k);
                i3a = Q.Add(i3a, Q.MultiplyPairs(a, p));
                i3b = Q.Add(i3b, Q.MultiplyPairs(b, p));
                p = Q.BroadcastPair(x4 + k);
                i4a = Q.Add(i4a, Q.MultiplyPairs(a, p));
                i4b = Q.Add(i4b, Q.MultiplyPairs(b, p));
                p = Q.BroadcastPair(x5 + k);
                i5a = Q.Add(i5a, Q.MultiplyPairs(a, p));
                i5b = Q.Add(i5b, Q.MultiplyPairs(b, p));
            }
            x0 += 32;
            x1 += 32;
            x2 += 32;
            x3 += 32;
            x4 += 32;
            x5 += 32;
            V sa = one, sb = one;
            if (w.HasHalfScales) w.HalfScales<V, S>(g, out sa, out sb);
            V s = S.Broadcast(scales[g]);
            f0a = S.MultiplyAdd(Q.ToFloat(i0a), S.Multiply(sa, s), f0a);
            f0b = S.MultiplyAdd(Q.ToFloat(i0b), S.Multiply(sb, s), f0b);
            s = S.Broadcast(scales[groups + g]);
            f1a = S.MultiplyAdd(Q.ToFloat(i1a), S.Multiply(sa, s), f1a);
            f1b = S.MultiplyAdd(Q.ToFloat(i1b), S.Multiply(sb, s), f1b);
            s = S.Broadcast(scales[(2 * groups) + g]);
            f2a = S.MultiplyAdd(Q.ToFloat(i2a), S.Multiply(sa, s), f2a);
            f2b = S.MultiplyAdd(Q.ToFloat(i2b), S.Multiply(sb, s), f2b);
            s = S.Broadcast(scales[(3 * groups) + g]);
            f3a = S.MultiplyAdd(Q.ToFloat(i3a), S.Multiply(sa, s), f3a);
            f3b = S.MultiplyAdd(Q.ToFloat(i3b), S.Multiply(sb, s), f3b);
            s = S.Broadcast(scales[(4 * groups) + g]);
            f4a = S.MultiplyAdd(Q.ToFloat(i4a), S.Multiply(sa, s), f4a);
            f4b = S.MultiplyAdd(Q.ToFloat(i4b), S.Multiply(sb, s), f4b);
            s = S.Broadcast(scales[(5 * groups) + g]);
            f5a = S.MultiplyAdd(Q.ToFloat(i5a), S.Multiply(sa, s), f5a);
            f5b = S.MultiplyAdd(Q.ToFloat(i5b), S.Multiply(sb, s), f5b);
        }
        S.Store(sums, f0a);
        S.Store(sums + 16, f0b);
        S.Store(sums + 32, f1a);
        S.Store(sums + 48, f1b);
        S.Store(sums + 64, f2a);
        S.Store(sums + 80, f2b);
        S.Store(sums + 96, f3a);
        S.Store(sums + 112, f3b);
        S.Store(sums + 128, f4a);
        S.Store(sums + 144, f4b);
        S.Store(sums + 160, f5a);
        S.Store(sums + 176, f5b);
    }
}
