using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Cpu;

/// <summary><see cref="ISimd{V}"/> on AVX-512.</summary>
internal readonly unsafe struct Simd512 : ISimd<Vector512<float>>
{
    private const MethodImplOptions Inline = MethodImplOptions.AggressiveInlining;

    public static bool HasWideTiles => true;

    public static Vector512<float> Zero => Vector512<float>.Zero;

    [MethodImpl(Inline)]
    public static Vector512<float> Broadcast(float value) => Vector512.Create(value);

    [MethodImpl(Inline)]
    public static Vector512<float> Load(float* source) => Vector512.Load(source);

    [MethodImpl(Inline)]
    public static Vector512<float> LoadBFloat16(ushort* source)
        => (Avx512F.ConvertToVector512UInt32(Vector256.Load(source)) << 16).AsSingle();

    // What reaches 65536 has the highest exponent and stands for infinity or NaN.
    [MethodImpl(Inline)]
    public static Vector512<float> LoadHalf(ushort* source)
    {
        Vector512<int> bits = HalfBits(source);
        Vector512<float> finite = bits.AsSingle() * Vector512.Create(0x77800000).AsSingle();
        Vector512<float> special = Vector512.GreaterThanOrEqual(Vector512.Abs(finite), Vector512.Create(65536f));
        return Vector512.ConditionalSelect(special, (bits | Vector512.Create(0x7F800000)).AsSingle(), finite);
    }

    [MethodImpl(Inline)]
    public static Vector512<float> LoadFiniteHalf(ushort* source) => HalfBits(source).AsSingle() * Vector512.Create(0x77800000).AsSingle();

    // Exponent and fraction land 112 too low in a binary32, so multiplying by 2^112 is exact for normal and subnormal values
    // alike. The shift of the sign-extended value leaves the sign in the bits between, which the mask clears.
    [MethodImpl(Inline)]
    private static Vector512<int> HalfBits(ushort* source)
        => (Avx512F.ConvertToVector512Int32(Vector256.Load((short*)source)) << 13) & Vector512.Create(unchecked((int)0x8FFFE000));

    [MethodImpl(Inline)]
    public static void Store(float* destination, Vector512<float> value) => value.Store(destination);

    [MethodImpl(Inline)]
    public static Vector512<float> Add(Vector512<float> a, Vector512<float> b) => a + b;

    [MethodImpl(Inline)]
    public static Vector512<float> Subtract(Vector512<float> a, Vector512<float> b) => a - b;

    [MethodImpl(Inline)]
    public static Vector512<float> Multiply(Vector512<float> a, Vector512<float> b) => a * b;

    [MethodImpl(Inline)]
    public static Vector512<float> Divide(Vector512<float> a, Vector512<float> b) => a / b;

    [MethodImpl(Inline)]
    public static Vector512<float> MultiplyAdd(Vector512<float> a, Vector512<float> b, Vector512<float> c)
        => Avx512F.FusedMultiplyAdd(a, b, c);

    [MethodImpl(Inline)]
    public static Vector512<float> Max(Vector512<float> bound, Vector512<float> value) => Avx512F.Max(bound, value);

    [MethodImpl(Inline)]
    public static Vector512<float> Min(Vector512<float> bound, Vector512<float> value) => Avx512F.Min(bound, value);

    [MethodImpl(Inline)]
    public static Vector512<float> Abs(Vector512<float> value) => Vector512.Abs(value);

    [MethodImpl(Inline)]
    public static Vector512<float> SelectLess(Vector512<float> test, Vector512<float> limit, Vector512<float> less, Vector512<float> other)
        => Vector512.ConditionalSelect(Vector512.LessThan(test, limit), less, other);

    [MethodImpl(Inline)]
    public static Vector512<float> PowerOfTwo(Vector512<float> shifted)
        => ((shifted.AsInt32() << 23) + Vector512.Create(0x3F800000)).AsSingle();

    [MethodImpl(Inline)]
    private static Vector128<float> Fold(Vector512<float> v)
    {
        Vector256<float> eight = v.GetLower() + v.GetUpper();
        return eight.GetLower() + eight.GetUpper();
    }

    [MethodImpl(Inline)]
    public static float Sum(Vector512<float> value) => Simd128.SumLanes(Fold(value));

    [MethodImpl(Inline)]
    public static Vector128<float> Sum4(Vector512<float> a, Vector512<float> b, Vector512<float> c, Vector512<float> d)
        => Simd128.SumLanes4(Fold(a), Fold(b), Fold(c), Fold(d));

    // Quarter q: the lanes of the q-th vector, l added to l + 8 and then to l + 4.
    [MethodImpl(Inline)]
    private static Vector512<float> Fold4(Vector512<float> a, Vector512<float> b, Vector512<float> c, Vector512<float> d)
    {
        Vector512<float> ab = Avx512F.Shuffle4x128(a, b, 0x44) + Avx512F.Shuffle4x128(a, b, 0xEE); // eight lanes each
        Vector512<float> cd = Avx512F.Shuffle4x128(c, d, 0x44) + Avx512F.Shuffle4x128(c, d, 0xEE);
        return Avx512F.Shuffle4x128(ab, cd, 0x88) + Avx512F.Shuffle4x128(ab, cd, 0xDD);
    }

    // Quarter by quarter: l added to l + 2, then the last two. Two sums of a, then two of b.
    [MethodImpl(Inline)]
    private static Vector512<float> Fold2(Vector512<float> a, Vector512<float> b)
        => Avx512F.UnpackLow(a.AsDouble(), b.AsDouble()).AsSingle() + Avx512F.UnpackHigh(a.AsDouble(), b.AsDouble()).AsSingle();

    [MethodImpl(Inline)]
    private static Vector512<float> Fold1(Vector512<float> ab, Vector512<float> cd) => Avx512F.Shuffle(ab, cd, 0x88) + Avx512F.Shuffle(ab, cd, 0xDD);

    // All rows go through each step together: half the shuffles and additions of summing row by row.
    [MethodImpl(Inline)]
    public static void PutSums4x4(float* c, nint ldc, bool add, Vector512<float> a0, Vector512<float> a1, Vector512<float> a2, Vector512<float> a3,
        Vector512<float> b0, Vector512<float> b1, Vector512<float> b2, Vector512<float> b3, Vector512<float> c0, Vector512<float> c1, Vector512<float> c2, Vector512<float> c3, Vector512<float> d0, Vector512<float> d1, Vector512<float> d2, Vector512<float> d3)
    {
        Vector512<float> rows = Fold1(Fold2(Fold4(a0, b0, c0, d0), Fold4(a1, b1, c1, d1)), Fold2(Fold4(a2, b2, c2, d2), Fold4(a3, b3, c3, d3)));
        Simd.Put(c, rows.GetLower().GetLower(), add);
        Simd.Put(c + ldc, rows.GetLower().GetUpper(), add);
        Simd.Put(c + 2 * ldc, rows.GetUpper().GetLower(), add);
        Simd.Put(c + 3 * ldc, rows.GetUpper().GetUpper(), add);
    }

    [MethodImpl(Inline)]
    public static void PutSums2x4(float* c, nint ldc, bool add, Vector512<float> a0, Vector512<float> a1, Vector512<float> a2, Vector512<float> a3, Vector512<float> b0, Vector512<float> b1, Vector512<float> b2, Vector512<float> b3)
    {
        // Quarters: columns 0 and 2 of a, of b, then columns 1 and 3 of a, of b.
        Vector512<float> pairs = Fold2(Fold4(a0, b0, a1, b1), Fold4(a2, b2, a3, b3));
        pairs = Fold1(pairs, pairs);
        Vector256<float> even = pairs.GetLower(), odd = pairs.GetUpper();
        Vector256<float> rows = Avx.UnpackLow(even, odd);
        Simd.Put(c, rows.GetLower(), add);
        Simd.Put(c + ldc, rows.GetUpper(), add);
    }

    [MethodImpl(Inline)]
    public static float MaxAcross(Vector512<float> value)
    {
        Vector256<float> eight = Vector256.Max(value.GetLower(), value.GetUpper());
        return Simd128.MaxLanes(Vector128.Max(eight.GetLower(), eight.GetUpper()));
    }
}
