using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Sixteen lanes in four 128-bit registers.</summary>
internal readonly struct Quad128(Vector128<float> a, Vector128<float> b, Vector128<float> c, Vector128<float> d)
{
    public readonly Vector128<float> A = a;
    public readonly Vector128<float> B = b;
    public readonly Vector128<float> C = c;
    public readonly Vector128<float> D = d;
}

/// <summary><see cref="ISimd{V}"/> on 128-bit vectors of any processor.</summary>
internal readonly unsafe struct Simd128 : ISimd<Quad128>
{
    private const MethodImplOptions Inline = MethodImplOptions.AggressiveInlining;

    public static bool HasWideTiles => false;

    public static Quad128 Zero => default;

    [MethodImpl(Inline)]
    public static Quad128 Broadcast(float value)
    {
        Vector128<float> v = Vector128.Create(value);
        return new(v, v, v, v);
    }

    [MethodImpl(Inline)]
    public static Quad128 Load(float* source)
        => new(Vector128.Load(source), Vector128.Load(source + 4), Vector128.Load(source + 8), Vector128.Load(source + 12));

    [MethodImpl(Inline)]
    public static Quad128 LoadBFloat16(ushort* source)
    {
        (Vector128<uint> a, Vector128<uint> b) = Vector128.Widen(Vector128.Load(source));
        (Vector128<uint> c, Vector128<uint> d) = Vector128.Widen(Vector128.Load(source + 8));
        return new((a << 16).AsSingle(), (b << 16).AsSingle(), (c << 16).AsSingle(), (d << 16).AsSingle());
    }

    [MethodImpl(Inline)]
    public static Quad128 LoadHalf(ushort* source)
    {
        (Vector128<int> a, Vector128<int> b) = Vector128.Widen(Vector128.Load((short*)source));
        (Vector128<int> c, Vector128<int> d) = Vector128.Widen(Vector128.Load((short*)source + 8));
        return new(FromHalf(a), FromHalf(b), FromHalf(c), FromHalf(d));
    }

    [MethodImpl(Inline)]
    public static Quad128 LoadFiniteHalf(ushort* source)
    {
        (Vector128<int> a, Vector128<int> b) = Vector128.Widen(Vector128.Load((short*)source));
        (Vector128<int> c, Vector128<int> d) = Vector128.Widen(Vector128.Load((short*)source + 8));
        return new(FromFinite(HalfBits(a)), FromFinite(HalfBits(b)), FromFinite(HalfBits(c)), FromFinite(HalfBits(d)));
    }

    // What reaches 65536 has the highest exponent and stands for infinity or NaN.
    [MethodImpl(Inline)]
    private static Vector128<float> FromHalf(Vector128<int> half)
    {
        Vector128<int> bits = HalfBits(half);
        Vector128<float> finite = FromFinite(bits);
        Vector128<float> special = Vector128.GreaterThanOrEqual(Vector128.Abs(finite), Vector128.Create(65536f));
        return Vector128.ConditionalSelect(special, (bits | Vector128.Create(0x7F800000)).AsSingle(), finite);
    }

    // Exponent and fraction land 112 too low in a binary32, so multiplying by 2^112 is exact for normal and subnormal values
    // alike. The shift of the sign-extended value leaves the sign in the bits between, which the mask clears.
    [MethodImpl(Inline)]
    private static Vector128<int> HalfBits(Vector128<int> half) => (half << 13) & Vector128.Create(unchecked((int)0x8FFFE000));

    [MethodImpl(Inline)]
    private static Vector128<float> FromFinite(Vector128<int> bits) => bits.AsSingle() * Vector128.Create(0x77800000).AsSingle();

    [MethodImpl(Inline)]
    public static void Store(float* destination, Quad128 value)
    {
        value.A.Store(destination);
        value.B.Store(destination + 4);
        value.C.Store(destination + 8);
        value.D.Store(destination + 12);
    }

    [MethodImpl(Inline)]
    public static Quad128 Add(Quad128 a, Quad128 b) => new(a.A + b.A, a.B + b.B, a.C + b.C, a.D + b.D);

    [MethodImpl(Inline)]
    public static Quad128 Subtract(Quad128 a, Quad128 b) => new(a.A - b.A, a.B - b.B, a.C - b.C, a.D - b.D);

    [MethodImpl(Inline)]
    public static Quad128 Multiply(Quad128 a, Quad128 b) => new(a.A * b.A, a.B * b.B, a.C * b.C, a.D * b.D);

    [MethodImpl(Inline)]
    public static Quad128 Divide(Quad128 a, Quad128 b) => new(a.A / b.A, a.B / b.B, a.C / b.C, a.D / b.D);

    [MethodImpl(Inline)]
    public static Quad128 MultiplyAdd(Quad128 a, Quad128 b, Quad128 c) => new(
        Vector128.FusedMultiplyAdd(a.A, b.A, c.A), Vector128.FusedMultiplyAdd(a.B, b.B, c.B),
        Vector128.FusedMultiplyAdd(a.C, b.C, c.C), Vector128.FusedMultiplyAdd(a.D, b.D, c.D));

    [MethodImpl(Inline)]
    public static Quad128 Max(Quad128 bound, Quad128 value) => SelectLess(value, bound, bound, value);

    [MethodImpl(Inline)]
    public static Quad128 Min(Quad128 bound, Quad128 value) => SelectLess(bound, value, bound, value);

    [MethodImpl(Inline)]
    public static Quad128 Abs(Quad128 value)
        => new(Vector128.Abs(value.A), Vector128.Abs(value.B), Vector128.Abs(value.C), Vector128.Abs(value.D));

    [MethodImpl(Inline)]
    public static Quad128 SelectLess(Quad128 test, Quad128 limit, Quad128 less, Quad128 other) => new(
        Vector128.ConditionalSelect(Vector128.LessThan(test.A, limit.A), less.A, other.A),
        Vector128.ConditionalSelect(Vector128.LessThan(test.B, limit.B), less.B, other.B),
        Vector128.ConditionalSelect(Vector128.LessThan(test.C, limit.C), less.C, other.C),
        Vector128.ConditionalSelect(Vector128.LessThan(test.D, limit.D), less.D, other.D));

    [MethodImpl(Inline)]
    public static Quad128 PowerOfTwo(Quad128 shifted) => new(Power(shifted.A), Power(shifted.B), Power(shifted.C), Power(shifted.D));

    [MethodImpl(Inline)]
    private static Vector128<float> Power(Vector128<float> shifted)
        => ((shifted.AsInt32() << 23) + Vector128.Create(0x3F800000)).AsSingle();

    [MethodImpl(Inline)]
    private static Vector128<float> Fold(Quad128 v) => (v.A + v.C) + (v.B + v.D);

    [MethodImpl(Inline)]
    public static float Sum(Quad128 value) => SumLanes(Fold(value));

    [MethodImpl(Inline)]
    public static Vector128<float> Sum4(Quad128 a, Quad128 b, Quad128 c, Quad128 d) => SumLanes4(Fold(a), Fold(b), Fold(c), Fold(d));

    [MethodImpl(Inline)]
    public static void PutSums4x4(float* c, nint ldc, bool add, Quad128 a0, Quad128 a1, Quad128 a2, Quad128 a3,
        Quad128 b0, Quad128 b1, Quad128 b2, Quad128 b3, Quad128 c0, Quad128 c1, Quad128 c2, Quad128 c3, Quad128 d0, Quad128 d1, Quad128 d2, Quad128 d3)
    {
        PutSums2x4(c, ldc, add, a0, a1, a2, a3, b0, b1, b2, b3);
        PutSums2x4(c + 2 * ldc, ldc, add, c0, c1, c2, c3, d0, d1, d2, d3);
    }

    [MethodImpl(Inline)]
    public static void PutSums2x4(float* c, nint ldc, bool add, Quad128 a0, Quad128 a1, Quad128 a2, Quad128 a3, Quad128 b0, Quad128 b1, Quad128 b2, Quad128 b3)
        => Simd.PutRows<Quad128, Simd128>(c, ldc, add, a0, a1, a2, a3, b0, b1, b2, b3);

    [MethodImpl(Inline)]
    public static float MaxAcross(Quad128 value)
        => MaxLanes(Vector128.Max(Vector128.Max(value.A, value.B), Vector128.Max(value.C, value.D)));

    /// <summary>(l0 + l2) + (l1 + l3).</summary>
    [MethodImpl(Inline)]
    internal static float SumLanes(Vector128<float> v)
        => (v.GetElement(0) + v.GetElement(2)) + (v.GetElement(1) + v.GetElement(3));

    /// <summary>The four sums, each as <see cref="SumLanes"/>.</summary>
    [MethodImpl(Inline)]
    internal static Vector128<float> SumLanes4(Vector128<float> a, Vector128<float> b, Vector128<float> c, Vector128<float> d)
    {
        if (Sse.IsSupported)
        {
            Vector128<float> ab = Sse.UnpackLow(a, b) + Sse.UnpackHigh(a, b);   // a0+a2, b0+b2, a1+a3, b1+b3
            Vector128<float> cd = Sse.UnpackLow(c, d) + Sse.UnpackHigh(c, d);
            return Sse.MoveLowToHigh(ab, cd) + Sse.MoveHighToLow(cd, ab);
        }
        if (AdvSimd.Arm64.IsSupported)
        {
            Vector128<float> ab = AdvSimd.Arm64.ZipLow(a, b) + AdvSimd.Arm64.ZipHigh(a, b);
            Vector128<float> cd = AdvSimd.Arm64.ZipLow(c, d) + AdvSimd.Arm64.ZipHigh(c, d);
            return Vector128.Create(ab.GetLower(), cd.GetLower()) + Vector128.Create(ab.GetUpper(), cd.GetUpper());
        }
        return Vector128.Create(SumLanes(a), SumLanes(b), SumLanes(c), SumLanes(d));
    }

    /// <summary>Four rows of four to four columns of four.</summary>
    [MethodImpl(Inline)]
    internal static (Vector128<float> A, Vector128<float> B, Vector128<float> C, Vector128<float> D) Transpose4(
        Vector128<float> a, Vector128<float> b, Vector128<float> c, Vector128<float> d)
    {
        if (Sse.IsSupported)
        {
            Vector128<float> ab = Sse.UnpackLow(a, b), cd = Sse.UnpackLow(c, d);
            Vector128<float> abHigh = Sse.UnpackHigh(a, b), cdHigh = Sse.UnpackHigh(c, d);
            return (Sse.MoveLowToHigh(ab, cd), Sse.MoveHighToLow(cd, ab), Sse.MoveLowToHigh(abHigh, cdHigh), Sse.MoveHighToLow(cdHigh, abHigh));
        }
        return (Vector128.Create(a[0], b[0], c[0], d[0]), Vector128.Create(a[1], b[1], c[1], d[1]),
            Vector128.Create(a[2], b[2], c[2], d[2]), Vector128.Create(a[3], b[3], c[3], d[3]));
    }

    /// <summary>The largest of four lanes.</summary>
    [MethodImpl(Inline)]
    internal static float MaxLanes(Vector128<float> v)
        => MathF.Max(MathF.Max(v.GetElement(0), v.GetElement(2)), MathF.Max(v.GetElement(1), v.GetElement(3)));
}
