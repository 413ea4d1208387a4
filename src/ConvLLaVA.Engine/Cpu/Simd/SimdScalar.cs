using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Sixteen lanes in memory.</summary>
[InlineArray(Simd.Lanes)]
internal struct Lanes16
{
    private float _first;
}

/// <summary><see cref="ISimd{V}"/> one lane at a time: slow, for machines without vectors and as a check of the others.</summary>
internal readonly unsafe struct SimdScalar : ISimd<Lanes16>
{
    public static bool HasWideTiles => false;

    public static Lanes16 Zero => default;

    public static Lanes16 Broadcast(float value)
    {
        Lanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = value;
        return r;
    }

    public static Lanes16 Load(float* source)
    {
        Lanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = source[i];
        return r;
    }

    public static Lanes16 LoadBFloat16(ushort* source)
    {
        Lanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = BitConverter.UInt32BitsToSingle((uint)source[i] << 16);
        return r;
    }

    public static Lanes16 LoadHalf(ushort* source)
    {
        Lanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = (float)BitConverter.UInt16BitsToHalf(source[i]);
        return r;
    }

    public static Lanes16 LoadFiniteHalf(ushort* source) => LoadHalf(source);

    public static void Store(float* destination, Lanes16 value)
    {
        for (int i = 0; i < Simd.Lanes; i++) destination[i] = value[i];
    }

    public static Lanes16 Add(Lanes16 a, Lanes16 b)
    {
        for (int i = 0; i < Simd.Lanes; i++) a[i] += b[i];
        return a;
    }

    public static Lanes16 Subtract(Lanes16 a, Lanes16 b)
    {
        for (int i = 0; i < Simd.Lanes; i++) a[i] -= b[i];
        return a;
    }

    public static Lanes16 Multiply(Lanes16 a, Lanes16 b)
    {
        for (int i = 0; i < Simd.Lanes; i++) a[i] *= b[i];
        return a;
    }

    public static Lanes16 Divide(Lanes16 a, Lanes16 b)
    {
        for (int i = 0; i < Simd.Lanes; i++) a[i] /= b[i];
        return a;
    }

    public static Lanes16 MultiplyAdd(Lanes16 a, Lanes16 b, Lanes16 c)
    {
        for (int i = 0; i < Simd.Lanes; i++) a[i] = MathF.FusedMultiplyAdd(a[i], b[i], c[i]);
        return a;
    }

    public static Lanes16 Max(Lanes16 bound, Lanes16 value) => SelectLess(value, bound, bound, value);

    public static Lanes16 Min(Lanes16 bound, Lanes16 value) => SelectLess(bound, value, bound, value);

    public static Lanes16 Abs(Lanes16 value)
    {
        for (int i = 0; i < Simd.Lanes; i++) value[i] = MathF.Abs(value[i]);
        return value;
    }

    public static Lanes16 SelectLess(Lanes16 test, Lanes16 limit, Lanes16 less, Lanes16 other)
    {
        for (int i = 0; i < Simd.Lanes; i++) other[i] = test[i] < limit[i] ? less[i] : other[i];
        return other;
    }

    public static Lanes16 PowerOfTwo(Lanes16 shifted)
    {
        for (int i = 0; i < Simd.Lanes; i++)
            shifted[i] = BitConverter.Int32BitsToSingle((BitConverter.SingleToInt32Bits(shifted[i]) << 23) + 0x3F800000);
        return shifted;
    }

    public static float Sum(Lanes16 v)
    {
        for (int half = Simd.Lanes / 2; half > 0; half /= 2)
        {
            for (int i = 0; i < half; i++) v[i] += v[i + half];
        }
        return v[0];
    }

    public static Vector128<float> Sum4(Lanes16 a, Lanes16 b, Lanes16 c, Lanes16 d)
        => Vector128.Create(Sum(a), Sum(b), Sum(c), Sum(d));

    public static void PutSums4x4(float* c, nint ldc, bool add, Lanes16 a0, Lanes16 a1, Lanes16 a2, Lanes16 a3,
        Lanes16 b0, Lanes16 b1, Lanes16 b2, Lanes16 b3, Lanes16 c0, Lanes16 c1, Lanes16 c2, Lanes16 c3, Lanes16 d0, Lanes16 d1, Lanes16 d2, Lanes16 d3)
    {
        PutSums2x4(c, ldc, add, a0, a1, a2, a3, b0, b1, b2, b3);
        PutSums2x4(c + 2 * ldc, ldc, add, c0, c1, c2, c3, d0, d1, d2, d3);
    }

    public static void PutSums2x4(float* c, nint ldc, bool add, Lanes16 a0, Lanes16 a1, Lanes16 a2, Lanes16 a3, Lanes16 b0, Lanes16 b1, Lanes16 b2, Lanes16 b3)
        => Simd.PutRows<Lanes16, SimdScalar>(c, ldc, add, a0, a1, a2, a3, b0, b1, b2, b3);

    public static float MaxAcross(Lanes16 value)
    {
        float max = value[0];
        for (int i = 1; i < Simd.Lanes; i++) max = MathF.Max(max, value[i]);
        return max;
    }
}
