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

    // Exponent and fraction land 112 too low in a binary32, so multiplying by 2^112 is exact for normal and subnormal values
    // alike. What reaches 65536 has the highest exponent and stands for infinity or NaN. The shift of the sign-extended
    // value leaves the sign in the bits between, which the mask clears.
    [MethodImpl(Inline)]
    public static Vector512<float> LoadHalf(ushort* source)
    {
        Vector512<int> bits = (Avx512F.ConvertToVector512Int32(Vector256.Load((short*)source)) << 13) & Vector512.Create(unchecked((int)0x8FFFE000));
        Vector512<float> finite = bits.AsSingle() * Vector512.Create(0x77800000).AsSingle();
        Vector512<float> special = Vector512.GreaterThanOrEqual(Vector512.Abs(finite), Vector512.Create(65536f));
        return Vector512.ConditionalSelect(special, (bits | Vector512.Create(0x7F800000)).AsSingle(), finite);
    }

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

    [MethodImpl(Inline)]
    public static float MaxAcross(Vector512<float> value)
    {
        Vector256<float> eight = Vector256.Max(value.GetLower(), value.GetUpper());
        return Simd128.MaxLanes(Vector128.Max(eight.GetLower(), eight.GetUpper()));
    }
}
