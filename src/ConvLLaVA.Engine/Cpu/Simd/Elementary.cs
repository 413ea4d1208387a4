using System.Runtime.CompilerServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>exp, GELU and SiLU of sixteen lanes: the same polynomials, rounded the same way, on every path.</summary>
internal static class Elementary<V, S> where V : struct where S : struct, ISimd<V>
{
    private const MethodImplOptions Inline = MethodImplOptions.AggressiveInlining;

    // exp of anything below would be subnormal; it becomes zero. Above the other limit 2^n would not be a number.
    private const float ExpLowest = -87.33654f;
    private const float ExpHighest = 88.37626f;

    /// <summary>e^x to about 1e-7 relative; 0 below -87.3, held at e^88.37 above.</summary>
    [MethodImpl(Inline)]
    public static V Exp(V x)
    {
        V lowest = S.Broadcast(ExpLowest);
        V clamped = S.Min(S.Broadcast(ExpHighest), S.Max(lowest, x));
        // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
        V magic = S.Broadcast(12582912f);
        V shifted = S.MultiplyAdd(clamped, S.Broadcast(1.44269504f), magic);
        V n = S.Subtract(shifted, magic);
        // ln 2 in two parts, the first with few bits, so that the remainder keeps its precision.
        V r = S.MultiplyAdd(n, S.Broadcast(-0.693359375f), clamped);
        r = S.MultiplyAdd(n, S.Broadcast(2.12194440e-4f), r);
        V p = S.Broadcast(1.9875691500e-4f);
        p = S.MultiplyAdd(p, r, S.Broadcast(1.3981999507e-3f));
        p = S.MultiplyAdd(p, r, S.Broadcast(8.3334519073e-3f));
        p = S.MultiplyAdd(p, r, S.Broadcast(4.1665795894e-2f));
        p = S.MultiplyAdd(p, r, S.Broadcast(1.6666665459e-1f));
        p = S.MultiplyAdd(p, r, S.Broadcast(5.0000001201e-1f));
        p = S.MultiplyAdd(p, S.Multiply(r, r), S.Add(r, S.Broadcast(1f)));
        return S.SelectLess(x, lowest, S.Zero, S.Multiply(p, S.PowerOfTwo(shifted)));
    }

    /// <summary>x * Phi(x), the exact (erf) GELU. Phi(-|x|) = g(t) * exp(-x^2 / 2) with t = 1 / (1 + 0.3 |x|), where g is a minimax
    /// polynomial with relative error below 6e-8; both tails so keep their relative precision.</summary>
    [MethodImpl(Inline)]
    public static V Gelu(V x)
    {
        V magnitude = S.Abs(x);
        V t = S.Divide(S.Broadcast(1f), S.MultiplyAdd(magnitude, S.Broadcast(0.3f), S.Broadcast(1f)));
        V g = S.Broadcast(0.03837818825279878f);
        g = S.MultiplyAdd(g, t, S.Broadcast(-0.16916563333163717f));
        g = S.MultiplyAdd(g, t, S.Broadcast(0.22865912742523564f));
        g = S.MultiplyAdd(g, t, S.Broadcast(-0.07650543403869764f));
        g = S.MultiplyAdd(g, t, S.Broadcast(0.14253484284577692f));
        g = S.MultiplyAdd(g, t, S.Broadcast(0.0946837937054326f));
        g = S.MultiplyAdd(g, t, S.Broadcast(0.12192027857813938f));
        g = S.MultiplyAdd(g, t, S.Broadcast(0.11948769702233553f));
        g = S.MultiplyAdd(g, t, S.Broadcast(7.168452821020994e-06f));
        V tail = S.Multiply(x, S.Multiply(g, Exp(S.Multiply(S.Multiply(x, x), S.Broadcast(-0.5f)))));
        return S.SelectLess(x, S.Zero, tail, S.Subtract(x, tail));
    }

    /// <summary>x / (1 + e^-x).</summary>
    [MethodImpl(Inline)]
    public static V Silu(V x) => S.Divide(x, S.Add(S.Broadcast(1f), Exp(S.Subtract(S.Zero, x))));
}
