using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>What moves elements and hardly computes.</summary>
internal static unsafe class Moves<V, S> where V : struct where S : struct, ISimd<V>
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining;

    /// <summary>Widens stored elements. Both [count].</summary>
    [MethodImpl(Hot)]
    public static void Widen<TW>(byte* input, float* output, int count) where TW : struct, IElement
    {
        int whole = count & ~(Simd.Lanes - 1), tail = count - whole;
        for (int i = 0; i < whole; i += Simd.Lanes) S.Store(output + i, TW.Load<V, S>(input + (nint)i * TW.Size));
        if (tail != 0) Simd.StorePartial<V, S>(output + whole, TW.LoadPartial<V, S>(input + (nint)whole * TW.Size, tail), tail);
    }

    /// <summary>Rotates the pairs (i, i + head_dim / 2) of one head. head [head_dim], table: cosines and behind them sines, head_dim / 2 each.</summary>
    [MethodImpl(Hot)]
    public static void Rotate(float* head, float* table, int headDim)
    {
        int half = headDim / 2, i = 0;
        for (; i + Simd.Lanes <= half; i += Simd.Lanes)
        {
            V cosine = S.Load(table + i), sine = S.Load(table + half + i), a = S.Load(head + i), b = S.Load(head + half + i);
            S.Store(head + i, S.Subtract(S.Multiply(a, cosine), S.Multiply(b, sine)));
            S.Store(head + half + i, S.Add(S.Multiply(b, cosine), S.Multiply(a, sine)));
        }
        for (; i < half; i++)
        {
            float cosine = table[i], sine = table[half + i], a = head[i], b = head[i + half];
            head[i] = a * cosine - b * sine;
            head[i + half] = b * cosine + a * sine;
        }
    }

    /// <summary>output[4 i + k] = rows[k, i]. rows [4, count], output [4 * count]</summary>
    [MethodImpl(Hot)]
    public static void Interleave4(float* rows, int count, float* output)
    {
        int i = 0;
        for (; i + 4 <= count; i += 4)
        {
            Vector128<float> a = Vector128.Load(rows + i), b = Vector128.Load(rows + count + i);
            Vector128<float> c = Vector128.Load(rows + 2 * (nint)count + i), d = Vector128.Load(rows + 3 * (nint)count + i);
            (a, b, c, d) = Simd128.Transpose4(a, b, c, d);
            a.Store(output + 4 * i);
            b.Store(output + 4 * i + 4);
            c.Store(output + 4 * i + 8);
            d.Store(output + 4 * i + 12);
        }
        for (; i < count; i++)
        {
            for (int k = 0; k < 4; k++) output[4 * i + k] = rows[k * (nint)count + i];
        }
    }
}
