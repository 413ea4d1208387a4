using System.Runtime.CompilerServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Loops that do nothing but what a processor can do most of: what kernels are held against.</summary>
internal static unsafe class Probes<V, S> where V : struct where S : struct, ISimd<V>
{
    /// <summary>Independent chains: more than latency times issue width, and no more than there are registers for.</summary>
    private static int Chains => S.HasWideTiles ? 12 : 6;

    /// <summary>Floating-point operations of one round of <see cref="MultiplyAdds"/>.</summary>
    public static int FlopsPerRound => 2 * Simd.Lanes * Chains;

    /// <summary>Fused multiply-adds in registers.</summary>
    /// <param name="rounds">How often each chain grows.</param>
    /// <returns>A number that needs all of them.</returns>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static float MultiplyAdds(long rounds)
    {
        // Each chain tends to 2, far from subnormal numbers and infinities.
        V half = S.Broadcast(0.5f), one = S.Broadcast(1f);
        V a = one, b = one, c = one, d = one, e = one, f = one;
        V g = one, h = one, i = one, j = one, k = one, l = one;
        for (; rounds > 0; rounds--)
        {
            a = S.MultiplyAdd(a, half, one);
            b = S.MultiplyAdd(b, half, one);
            c = S.MultiplyAdd(c, half, one);
            d = S.MultiplyAdd(d, half, one);
            e = S.MultiplyAdd(e, half, one);
            f = S.MultiplyAdd(f, half, one);
            if (!S.HasWideTiles) continue;
            g = S.MultiplyAdd(g, half, one);
            h = S.MultiplyAdd(h, half, one);
            i = S.MultiplyAdd(i, half, one);
            j = S.MultiplyAdd(j, half, one);
            k = S.MultiplyAdd(k, half, one);
            l = S.MultiplyAdd(l, half, one);
        }
        V sum = S.Add(S.Add(S.Add(a, b), S.Add(c, d)), S.Add(e, f));
        return S.Sum(S.Add(sum, S.Add(S.Add(S.Add(g, h), S.Add(i, j)), S.Add(k, l))));
    }

    /// <summary>Reads <paramref name="count"/> floats, a multiple of 128, in order.</summary>
    /// <returns>Their sum.</returns>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static float Read(float* data, nint count)
    {
        V a = S.Zero, b = S.Zero, c = S.Zero, d = S.Zero;
        for (float* end = data + count; data < end; data += 8 * Simd.Lanes)
        {
            a = S.Add(a, S.Load(data));
            b = S.Add(b, S.Load(data + 16));
            c = S.Add(c, S.Load(data + 32));
            d = S.Add(d, S.Load(data + 48));
            a = S.Add(a, S.Load(data + 64));
            b = S.Add(b, S.Load(data + 80));
            c = S.Add(c, S.Load(data + 96));
            d = S.Add(d, S.Load(data + 112));
        }
        return S.Sum(S.Add(S.Add(a, b), S.Add(c, d)));
    }
}
