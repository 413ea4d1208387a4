using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Sixteen lanes in two 256-bit registers.</summary>
internal readonly struct Pair256(Vector256<float> low, Vector256<float> high)
{
    public readonly Vector256<float> Low = low;
    public readonly Vector256<float> High = high;
}

/// <summary><see cref="ISimd{V}"/> on AVX2 and FMA.</summary>
internal readonly unsafe struct Simd256 : ISimd<Pair256>
{
    private const MethodImplOptions Inline = MethodImplOptions.AggressiveInlining;

    public static bool HasWideTiles => false;

    public static Pair256 Zero => default;

    [MethodImpl(Inline)]
    public static Pair256 Broadcast(float value)
    {
        Vector256<float> v = Vector256.Create(value);
        return new(v, v);
    }

    [MethodImpl(Inline)]
    public static Pair256 Load(float* source) => new(Vector256.Load(source), Vector256.Load(source + 8));

    [MethodImpl(Inline)]
    public static Pair256 LoadBFloat16(ushort* source) => new(
        (Avx2.ConvertToVector256Int32(source) << 16).AsSingle(),
        (Avx2.ConvertToVector256Int32(source + 8) << 16).AsSingle());

    [MethodImpl(Inline)]
    public static Pair256 LoadHalf(ushort* source) => new(
        FromHalf(Avx2.ConvertToVector256Int32((short*)source)),
        FromHalf(Avx2.ConvertToVector256Int32((short*)source + 8)));

    [MethodImpl(Inline)]
    public static Pair256 LoadFiniteHalf(ushort* source) => new(
        FromFinite(HalfBits(Avx2.ConvertToVector256Int32((short*)source))),
        FromFinite(HalfBits(Avx2.ConvertToVector256Int32((short*)source + 8))));

    // What reaches 65536 has the highest exponent and stands for infinity or NaN.
    [MethodImpl(Inline)]
    private static Vector256<float> FromHalf(Vector256<int> half)
    {
        Vector256<int> bits = HalfBits(half);
        Vector256<float> finite = FromFinite(bits);
        Vector256<float> special = Vector256.GreaterThanOrEqual(Vector256.Abs(finite), Vector256.Create(65536f));
        return Vector256.ConditionalSelect(special, (bits | Vector256.Create(0x7F800000)).AsSingle(), finite);
    }

    // Exponent and fraction land 112 too low in a binary32, so multiplying by 2^112 is exact for normal and subnormal values
    // alike. The shift of the sign-extended value leaves the sign in the bits between, which the mask clears.
    [MethodImpl(Inline)]
    private static Vector256<int> HalfBits(Vector256<int> half) => (half << 13) & Vector256.Create(unchecked((int)0x8FFFE000));

    [MethodImpl(Inline)]
    private static Vector256<float> FromFinite(Vector256<int> bits) => bits.AsSingle() * Vector256.Create(0x77800000).AsSingle();

    [MethodImpl(Inline)]
    public static void Store(float* destination, Pair256 value)
    {
        value.Low.Store(destination);
        value.High.Store(destination + 8);
    }

    [MethodImpl(Inline)]
    public static Pair256 Add(Pair256 a, Pair256 b) => new(a.Low + b.Low, a.High + b.High);

    [MethodImpl(Inline)]
    public static Pair256 Subtract(Pair256 a, Pair256 b) => new(a.Low - b.Low, a.High - b.High);

    [MethodImpl(Inline)]
    public static Pair256 Multiply(Pair256 a, Pair256 b) => new(a.Low * b.Low, a.High * b.High);

    [MethodImpl(Inline)]
    public static Pair256 Divide(Pair256 a, Pair256 b) => new(a.Low / b.Low, a.High / b.High);

    [MethodImpl(Inline)]
    public static Pair256 MultiplyAdd(Pair256 a, Pair256 b, Pair256 c)
        => new(Fma.MultiplyAdd(a.Low, b.Low, c.Low), Fma.MultiplyAdd(a.High, b.High, c.High));

    [MethodImpl(Inline)]
    public static Pair256 Max(Pair256 bound, Pair256 value) => new(Avx.Max(bound.Low, value.Low), Avx.Max(bound.High, value.High));

    [MethodImpl(Inline)]
    public static Pair256 Min(Pair256 bound, Pair256 value) => new(Avx.Min(bound.Low, value.Low), Avx.Min(bound.High, value.High));

    [MethodImpl(Inline)]
    public static Pair256 Abs(Pair256 value) => new(Vector256.Abs(value.Low), Vector256.Abs(value.High));

    [MethodImpl(Inline)]
    public static Pair256 SelectLess(Pair256 test, Pair256 limit, Pair256 less, Pair256 other) => new(
        Vector256.ConditionalSelect(Vector256.LessThan(test.Low, limit.Low), less.Low, other.Low),
        Vector256.ConditionalSelect(Vector256.LessThan(test.High, limit.High), less.High, other.High));

    [MethodImpl(Inline)]
    public static Pair256 PowerOfTwo(Pair256 shifted) => new(Power(shifted.Low), Power(shifted.High));

    [MethodImpl(Inline)]
    private static Vector256<float> Power(Vector256<float> shifted)
        => ((shifted.AsInt32() << 23) + Vector256.Create(0x3F800000)).AsSingle();

    [MethodImpl(Inline)]
    private static Vector128<float> Fold(Pair256 v)
    {
        Vector256<float> eight = v.Low + v.High;
        return eight.GetLower() + eight.GetUpper();
    }

    [MethodImpl(Inline)]
    public static float Sum(Pair256 value) => Simd128.SumLanes(Fold(value));

    [MethodImpl(Inline)]
    public static Vector128<float> Sum4(Pair256 a, Pair256 b, Pair256 c, Pair256 d)
        => Simd128.SumLanes4(Fold(a), Fold(b), Fold(c), Fold(d));

    [MethodImpl(Inline)]
    public static void PutSums4x4(float* c, nint ldc, bool add, Pair256 a0, Pair256 a1, Pair256 a2, Pair256 a3,
        Pair256 b0, Pair256 b1, Pair256 b2, Pair256 b3, Pair256 c0, Pair256 c1, Pair256 c2, Pair256 c3, Pair256 d0, Pair256 d1, Pair256 d2, Pair256 d3)
    {
        PutSums2x4(c, ldc, add, a0, a1, a2, a3, b0, b1, b2, b3);
        PutSums2x4(c + 2 * ldc, ldc, add, c0, c1, c2, c3, d0, d1, d2, d3);
    }

    [MethodImpl(Inline)]
    public static void PutSums2x4(float* c, nint ldc, bool add, Pair256 a0, Pair256 a1, Pair256 a2, Pair256 a3, Pair256 b0, Pair256 b1, Pair256 b2, Pair256 b3)
        => Simd.PutRows<Pair256, Simd256>(c, ldc, add, a0, a1, a2, a3, b0, b1, b2, b3);

    [MethodImpl(Inline)]
    public static float MaxAcross(Pair256 value)
    {
        Vector256<float> eight = Vector256.Max(value.Low, value.High);
        return Simd128.MaxLanes(Vector128.Max(eight.GetLower(), eight.GetUpper()));
    }
}
