using System.Runtime.CompilerServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Products of 4-bit weights and 8-bit activations. Codes are read as 0..15, so that unsigned times signed bytes cannot overflow:
/// a group's 32 products of at most 15 * 127 are sixteen 16-bit sums of at most 30480. What 8 times the activations' sum is
/// too much is taken off each group's integer sum.</summary>
internal static unsafe class Int4Tile<V, S, I, Q> where V : struct where S : struct, ISimd<V> where I : struct where Q : struct, IIntegers<I, V>
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization;
    private const int Ahead = 2048; // bytes of codes fetched before they are needed

    /// <summary>As many tokens from <paramref name="row"/> on as one tile takes; returns their number. sums [tokens, 32].</summary>
    public static int Run(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        int left = x.Rows - row;
        if (left >= 4 && S.HasWideTiles)
        {
            Tile4(w, x, row, sums);
            return 4;
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
        byte* w0 = w.Codes0, w1 = w.Codes1;
        sbyte* x0 = (sbyte*)x.Codes + (row * x.Stride);
        float* scales = x.Scales + ((nint)row * x.Groups);
        int* offsets = x.Sums + ((nint)row * x.Groups);
        int groups = x.Groups;
        V f0a = S.Zero, f0b = S.Zero;
        for (int g = 0; g < groups; g++)
        {
            I i0a = Q.Zero, i0b = Q.Zero;
            QuantPanel.Prefetch(w0 + Ahead, 256);
            QuantPanel.Prefetch(w1 + Ahead, 256);
            for (int k = 0; k < 32; k += 8)
            {
                I a = Q.Load(w0), b = Q.Load(w1), aLow = Q.LowNibbles(a), aHigh = Q.HighNibbles(a), bLow = Q.LowNibbles(b), bHigh = Q.HighNibbles(b);
                w0 += 64;
                w1 += 64;
                I p = Q.BroadcastQuad(x0 + k), q = Q.BroadcastQuad(x0 + k + 4);
                i0a = Q.AddShort(Q.AddShort(i0a, Q.MultiplyQuads(aLow, p)), Q.MultiplyQuads(aHigh, q));
                i0b = Q.AddShort(Q.AddShort(i0b, Q.MultiplyQuads(bLow, p)), Q.MultiplyQuads(bHigh, q));
            }
            x0 += 32;
            w.HalfScales<V, S>(g, out V sa, out V sb);
            V s = S.Broadcast(scales[g]);
            I z = Q.Broadcast(offsets[g]);
            f0a = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i0a), z)), S.Multiply(sa, s), f0a);
            f0b = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i0b), z)), S.Multiply(sb, s), f0b);
        }
        S.Store(sums, f0a);
        S.Store(sums + 16, f0b);
    }

    /// <summary>Two tokens against 32 rows.</summary>
    [MethodImpl(Hot)]
    private static void Tile2(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        byte* w0 = w.Codes0, w1 = w.Codes1;
        sbyte* x0 = (sbyte*)x.Codes + (row * x.Stride);
        sbyte* x1 = x0 + x.Stride;
        float* scales = x.Scales + ((nint)row * x.Groups);
        int* offsets = x.Sums + ((nint)row * x.Groups);
        int groups = x.Groups;
        V f0a = S.Zero, f0b = S.Zero, f1a = S.Zero, f1b = S.Zero;
        for (int g = 0; g < groups; g++)
        {
            I i0a = Q.Zero, i0b = Q.Zero, i1a = Q.Zero, i1b = Q.Zero;
            for (int k = 0; k < 32; k += 8)
            {
                I a = Q.Load(w0), b = Q.Load(w1), aLow = Q.LowNibbles(a), aHigh = Q.HighNibbles(a), bLow = Q.LowNibbles(b), bHigh = Q.HighNibbles(b);
                w0 += 64;
                w1 += 64;
                I p = Q.BroadcastQuad(x0 + k), q = Q.BroadcastQuad(x0 + k + 4);
                i0a = Q.AddShort(Q.AddShort(i0a, Q.MultiplyQuads(aLow, p)), Q.MultiplyQuads(aHigh, q));
                i0b = Q.AddShort(Q.AddShort(i0b, Q.MultiplyQuads(bLow, p)), Q.MultiplyQuads(bHigh, q));
                p = Q.BroadcastQuad(x1 + k);
                q = Q.BroadcastQuad(x1 + k + 4);
                i1a = Q.AddShort(Q.AddShort(i1a, Q.MultiplyQuads(aLow, p)), Q.MultiplyQuads(aHigh, q));
                i1b = Q.AddShort(Q.AddShort(i1b, Q.MultiplyQuads(bLow, p)), Q.MultiplyQuads(bHigh, q));
            }
            x0 += 32;
            x1 += 32;
            w.HalfScales<V, S>(g, out V sa, out V sb);
            V s = S.Broadcast(scales[g]);
            I z = Q.Broadcast(offsets[g]);
            f0a = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i0a), z)), S.Multiply(sa, s), f0a);
            f0b = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i0b), z)), S.Multiply(sb, s), f0b);
            s = S.Broadcast(scales[groups + g]);
            z = Q.Broadcast(offsets[groups + g]);
            f1a = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i1a), z)), S.Multiply(sa, s), f1a);
            f1b = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i1b), z)), S.Multiply(sb, s), f1b);
        }
        S.Store(sums, f0a);
        S.Store(sums + 16, f0b);
        S.Store(sums + 32, f1a);
        S.Store(sums + 48, f1b);
    }

    /// <summary>Four tokens against 32 rows.</summary>
    [MethodImpl(Hot)]
    private static void Tile4(in QuantPanel w, in QuantInput x, int row, float* sums)
    {
        byte* w0 = w.Codes0, w1 = w.Codes1;
        sbyte* x0 = (sbyte*)x.Codes + (row * x.Stride);
        sbyte* x1 = x0 + x.Stride;
        sbyte* x2 = x1 + x.Stride;
        sbyte* x3 = x2 + x.Stride;
        float* scales = x.Scales + ((nint)row * x.Groups);
        int* offsets = x.Sums + ((nint)row * x.Groups);
        int groups = x.Groups;
        V f0a = S.Zero, f0b = S.Zero, f1a = S.Zero, f1b = S.Zero, f2a = S.Zero, f2b = S.Zero, f3a = S.Zero, f3b = S.Zero;
        for (int g = 0; g < groups; g++)
        {
            I i0a = Q.Zero, i0b = Q.Zero, i1a = Q.Zero, i1b = Q.Zero, i2a = Q.Zero, i2b = Q.Zero, i3a = Q.Zero, i3b = Q.Zero;
            for (int k = 0; k < 32; k += 8)
            {
                I a = Q.Load(w0), b = Q.Load(w1), aLow = Q.LowNibbles(a), aHigh = Q.HighNibbles(a), bLow = Q.LowNibbles(b), bHigh = Q.HighNibbles(b);
                w0 += 64;
                w1 += 64;
                I p = Q.BroadcastQuad(x0 + k), q = Q.BroadcastQuad(x0 + k + 4);
                i0a = Q.AddShort(Q.AddShort(i0a, Q.MultiplyQuads(aLow, p)), Q.MultiplyQuads(aHigh, q));
                i0b = Q.AddShort(Q.AddShort(i0b, Q.MultiplyQuads(bLow, p)), Q.MultiplyQuads(bHigh, q));
                p = Q.BroadcastQuad(x1 + k);
                q = Q.BroadcastQuad(x1 + k + 4);
                i1a = Q.AddShort(Q.AddShort(i1a, Q.MultiplyQuads(aLow, p)), Q.MultiplyQuads(aHigh, q));
                i1b = Q.AddShort(Q.AddShort(i1b, Q.MultiplyQuads(bLow, p)), Q.MultiplyQuads(bHigh, q));
                p = Q.BroadcastQuad(x2 + k);
                q = Q.BroadcastQuad(x2 + k + 4);
                i2a = Q.AddShort(Q.AddShort(i2a, Q.MultiplyQuads(aLow, p)), Q.MultiplyQuads(aHigh, q));
                i2b = Q.AddShort(Q.AddShort(i2b, Q.MultiplyQuads(bLow, p)), Q.MultiplyQuads(bHigh, q));
                p = Q.BroadcastQuad(x3 + k);
                q = Q.BroadcastQuad(x3 + k + 4);
                i3a = Q.AddShort(Q.AddShort(i3a, Q.MultiplyQuads(aLow, p)), Q.MultiplyQuads(aHigh, q));
                i3b = Q.AddShort(Q.AddShort(i3b, Q.MultiplyQuads(bLow, p)), Q.MultiplyQuads(bHigh, q));
            }
            x0 += 32;
            x1 += 32;
            x2 += 32;
            x3 += 32;
            w.HalfScales<V, S>(g, out V sa, out V sb);
            V s = S.Broadcast(scales[g]);
            I z = Q.Broadcast(offsets[g]);
            f0a = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i0a), z)), S.Multiply(sa, s), f0a);
            f0b = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i0b), z)), S.Multiply(sb, s), f0b);
            s = S.Broadcast(scales[groups + g]);
            z = Q.Broadcast(offsets[groups + g]);
            f1a = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i1a), z)), S.Multiply(sa, s), f1a);
            f1b = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i1b), z)), S.Multiply(sb, s), f1b);
            s = S.Broadcast(scales[(2 * groups) + g]);
            z = Q.Broadcast(offsets[(2 * groups) + g]);
            f2a = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i2a), z)), S.Multiply(sa, s), f2a);
            f2b = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i2b), z)), S.Multiply(sb, s), f2b);
            s = S.Broadcast(scales[(3 * groups) + g]);
            z = Q.Broadcast(offsets[(3 * groups) + g]);
            f3a = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i3a), z)), S.Multiply(sa, s), f3a);
            f3b = S.MultiplyAdd(Q.ToFloat(Q.Subtract(Q.SumPairs(i3b), z)), S.Multiply(sb, s), f3b);
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
