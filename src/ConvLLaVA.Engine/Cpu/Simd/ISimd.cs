using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Sixteen float lanes as one instruction set holds them in <typeparamref name="V"/>: one 512-bit register, two of
/// 256, four of 128, or an array. Every operation rounds each lane the same way on every path and sums across lanes go
/// through one fixed tree, so that kernels written against this interface give the same bits on all paths.</summary>
internal unsafe interface ISimd<V> where V : struct
{
    /// <summary>True when there are registers enough for a 6 x 4 tile of accumulators.</summary>
    static abstract bool HasWideTiles { get; }

    /// <summary>All lanes zero.</summary>
    static abstract V Zero { get; }

    static abstract V Broadcast(float value);

    static abstract V Load(float* source);

    /// <summary>Widens 16 bfloat16 values (exact).</summary>
    static abstract V LoadBFloat16(ushort* source);

    /// <summary>Widens 16 binary16 values (exact, subnormals and infinities included).</summary>
    static abstract V LoadHalf(ushort* source);

    /// <summary>Widens 16 binary16 values none of which is infinite or NaN (exact, subnormals included).</summary>
    static abstract V LoadFiniteHalf(ushort* source);

    static abstract void Store(float* destination, V value);

    static abstract V Add(V a, V b);

    static abstract V Subtract(V a, V b);

    static abstract V Multiply(V a, V b);

    static abstract V Divide(V a, V b);

    /// <summary>a * b + c, rounded once.</summary>
    static abstract V MultiplyAdd(V a, V b, V c);

    /// <summary>The larger of a constant and a value; NaN when the value is NaN.</summary>
    static abstract V Max(V bound, V value);

    /// <summary>The smaller of a constant and a value; NaN when the value is NaN.</summary>
    static abstract V Min(V bound, V value);

    static abstract V Abs(V value);

    /// <summary>Lane by lane: <paramref name="test"/> &lt; <paramref name="limit"/> ? <paramref name="less"/> : <paramref name="other"/>.</summary>
    static abstract V SelectLess(V test, V limit, V less, V other);

    /// <summary>2^n, where n is the integer that adding 1.5 * 2^23 left in the low bits of <paramref name="shifted"/>.</summary>
    static abstract V PowerOfTwo(V shifted);

    /// <summary>Sum of the lanes: l with l + 8, then l with l + 4, then l with l + 2, then the last two.</summary>
    static abstract float Sum(V value);

    /// <summary>The sums of four vectors, each through the tree of <see cref="Sum"/>.</summary>
    static abstract Vector128<float> Sum4(V a, V b, V c, V d);

    /// <summary>Stores the sums of 4 x 4 vectors, each through the tree of <see cref="Sum"/>, or adds them to what is there. Letters
    /// are rows, digits columns. c [4, ldc]</summary>
    static abstract void PutSums4x4(float* c, nint ldc, bool add, V a0, V a1, V a2, V a3,
        V b0, V b1, V b2, V b3, V c0, V c1, V c2, V c3, V d0, V d1, V d2, V d3);

    /// <summary>The same for 2 x 4 vectors. c [2, ldc]</summary>
    static abstract void PutSums2x4(float* c, nint ldc, bool add, V a0, V a1, V a2, V a3, V b0, V b1, V b2, V b3);

    /// <summary>The largest lane.</summary>
    static abstract float MaxAcross(V value);
}

/// <summary>What all paths share.</summary>
internal static unsafe class Simd
{
    /// <summary>Lanes of a vector.</summary>
    public const int Lanes = 16;

    /// <summary><paramref name="value"/> rounded up to whole vectors.</summary>
    public static int RoundUp(int value) => (value + Lanes - 1) & ~(Lanes - 1);

    /// <summary>Bytes of a cache line.</summary>
    public const int CacheLine = 64;

    /// <summary>Fetches a line into the second-level cache. The address may be any.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Prefetch(byte* address)
    {
        if (Sse.IsSupported) Sse.Prefetch1(address);
    }

    /// <summary>Fetches the lines of a range, of which any part may lie beyond what is there.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Prefetch(byte* address, int bytes)
    {
        for (int at = 0; at < bytes; at += CacheLine) Prefetch(address + at);
    }

    /// <summary>Stores four sums, or adds them to what is there.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Put(float* c, Vector128<float> sums, bool add)
    {
        if (add) sums = Vector128.Load(c) + sums;
        sums.Store(c);
    }

    /// <summary><see cref="ISimd{V}.PutSums2x4"/> row by row.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void PutRows<V, S>(float* c, nint ldc, bool add, V a0, V a1, V a2, V a3, V b0, V b1, V b2, V b3)
        where V : struct where S : struct, ISimd<V>
    {
        Put(c, S.Sum4(a0, a1, a2, a3), add);
        Put(c + ldc, S.Sum4(b0, b1, b2, b3), add);
    }

    /// <summary>The first <paramref name="count"/> (1..15) lanes from memory, the others zero.</summary>
    public static V LoadPartial<V, S>(float* source, int count) where V : struct where S : struct, ISimd<V>
    {
        float* padded = stackalloc float[Lanes];
        for (int i = 0; i < Lanes; i++) padded[i] = i < count ? source[i] : 0f;
        return S.Load(padded);
    }

    /// <summary>Stores the first <paramref name="count"/> (1..15) lanes.</summary>
    public static void StorePartial<V, S>(float* destination, V value, int count) where V : struct where S : struct, ISimd<V>
    {
        float* padded = stackalloc float[Lanes];
        S.Store(padded, value);
        for (int i = 0; i < count; i++) destination[i] = padded[i];
    }
}
