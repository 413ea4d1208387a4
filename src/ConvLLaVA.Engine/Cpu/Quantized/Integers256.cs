using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Sixteen 32-bit integers in two 256-bit registers.</summary>
internal readonly struct IntegerPair256(Vector256<int> low, Vector256<int> high)
{
    public readonly Vector256<int> Low = low;
    public readonly Vector256<int> High = high;
}

/// <summary><see cref="IIntegers{I, V}"/> on AVX2.</summary>
internal readonly unsafe struct Integers256 : IIntegers<IntegerPair256, Pair256>
{
    private const MethodImplOptions Inline = MethodImplOptions.AggressiveInlining;

    public static IntegerPair256 Zero => default;

    [MethodImpl(Inline)]
    public static IntegerPair256 Broadcast(int value)
    {
        Vector256<int> v = Vector256.Create(value);
        return new(v, v);
    }

    [MethodImpl(Inline)]
    public static IntegerPair256 Add(IntegerPair256 a, IntegerPair256 b) => new(a.Low + b.Low, a.High + b.High);

    [MethodImpl(Inline)]
    public static IntegerPair256 Subtract(IntegerPair256 a, IntegerPair256 b) => new(a.Low - b.Low, a.High - b.High);

    [MethodImpl(Inline)]
    public static Pair256 ToFloat(IntegerPair256 value) => new(Avx.ConvertToVector256Single(value.Low), Avx.ConvertToVector256Single(value.High));

    [MethodImpl(Inline)]
    public static IntegerPair256 LoadPairs(sbyte* source)
        => new(Avx2.ConvertToVector256Int16(source).AsInt32(), Avx2.ConvertToVector256Int16(source + 16).AsInt32());

    [MethodImpl(Inline)]
    public static IntegerPair256 BroadcastPair(short* source) => Broadcast(*(int*)source);

    [MethodImpl(Inline)]
    public static IntegerPair256 MultiplyPairs(IntegerPair256 a, IntegerPair256 b) => new(
        Avx2.MultiplyAddAdjacent(a.Low.AsInt16(), b.Low.AsInt16()), Avx2.MultiplyAddAdjacent(a.High.AsInt16(), b.High.AsInt16()));

    [MethodImpl(Inline)]
    public static IntegerPair256 Load(byte* source) => new(Vector256.Load((int*)source), Vector256.Load((int*)source + 8));

    [MethodImpl(Inline)]
    public static IntegerPair256 BroadcastQuad(sbyte* source) => Broadcast(*(int*)source);

    [MethodImpl(Inline)]
    public static IntegerPair256 LowNibbles(IntegerPair256 value)
    {
        Vector256<int> mask = Vector256.Create(0x0F0F0F0F);
        return new(value.Low & mask, value.High & mask);
    }

    [MethodImpl(Inline)]
    public static IntegerPair256 HighNibbles(IntegerPair256 value)
    {
        Vector256<int> mask = Vector256.Create(0x0F0F0F0F);
        return new((value.Low >>> 4) & mask, (value.High >>> 4) & mask);
    }

    [MethodImpl(Inline)]
    public static IntegerPair256 MultiplyQuads(IntegerPair256 small, IntegerPair256 signed) => new(
        Avx2.MultiplyAddAdjacent(small.Low.AsByte(), signed.Low.AsSByte()).AsInt32(), Avx2.MultiplyAddAdjacent(small.High.AsByte(), signed.High.AsSByte()).AsInt32());

    [MethodImpl(Inline)]
    public static IntegerPair256 AddShort(IntegerPair256 a, IntegerPair256 b)
        => new((a.Low.AsInt16() + b.Low.AsInt16()).AsInt32(), (a.High.AsInt16() + b.High.AsInt16()).AsInt32());

    [MethodImpl(Inline)]
    public static IntegerPair256 SumPairs(IntegerPair256 value)
    {
        Vector256<short> ones = Vector256.Create((short)1);
        return new(Avx2.MultiplyAddAdjacent(value.Low.AsInt16(), ones), Avx2.MultiplyAddAdjacent(value.High.AsInt16(), ones));
    }

    [MethodImpl(Inline)]
    public static IntegerPair256 LoadBytes(byte* source) => new(Avx2.ConvertToVector256Int32(source), Avx2.ConvertToVector256Int32(source + 8));

    [MethodImpl(Inline)]
    public static IntegerPair256 ShiftRight4(IntegerPair256 value) => new(value.Low >>> 4, value.High >>> 4);

    [MethodImpl(Inline)]
    public static Pair256 Look(Pair256 table, IntegerPair256 index) => new(Look(table, index.Low), Look(table, index.High));

    // Bit 3 of the index, moved to the sign, chooses between the halves of the table.
    [MethodImpl(Inline)]
    private static Vector256<float> Look(Pair256 table, Vector256<int> index) => Avx.BlendVariable(
        Avx2.PermuteVar8x32(table.Low, index), Avx2.PermuteVar8x32(table.High, index), (index << 28).AsSingle());

    [MethodImpl(Inline)]
    public static Pair256 LoadFloat8(byte* source)
        => new(Float8(Avx2.ConvertToVector256Int32((sbyte*)source)), Float8(Avx2.ConvertToVector256Int32((sbyte*)source + 8)));

    // Exponent and fraction land 120 too low in a binary32; the multiplication is exact for subnormal values too.
    [MethodImpl(Inline)]
    private static Vector256<float> Float8(Vector256<int> code)
        => ((code << 20) & Vector256.Create(unchecked((int)0x87F00000))).AsSingle() * Vector256.Create(0x7B800000).AsSingle();
}
