using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Sixteen 32-bit integers in four 128-bit registers.</summary>
internal readonly struct IntegerQuad128(Vector128<int> a, Vector128<int> b, Vector128<int> c, Vector128<int> d)
{
    public readonly Vector128<int> A = a;
    public readonly Vector128<int> B = b;
    public readonly Vector128<int> C = c;
    public readonly Vector128<int> D = d;
}

/// <summary><see cref="IIntegers{I, V}"/> on 128-bit vectors of any processor.</summary>
internal readonly unsafe struct Integers128 : IIntegers<IntegerQuad128, Quad128>
{
    private const MethodImplOptions Inline = MethodImplOptions.AggressiveInlining;

    public static IntegerQuad128 Zero => default;

    [MethodImpl(Inline)]
    public static IntegerQuad128 Broadcast(int value)
    {
        Vector128<int> v = Vector128.Create(value);
        return new(v, v, v, v);
    }

    [MethodImpl(Inline)]
    public static IntegerQuad128 Add(IntegerQuad128 x, IntegerQuad128 y) => new(x.A + y.A, x.B + y.B, x.C + y.C, x.D + y.D);

    [MethodImpl(Inline)]
    public static IntegerQuad128 Subtract(IntegerQuad128 x, IntegerQuad128 y) => new(x.A - y.A, x.B - y.B, x.C - y.C, x.D - y.D);

    [MethodImpl(Inline)]
    public static Quad128 ToFloat(IntegerQuad128 x)
        => new(Vector128.ConvertToSingle(x.A), Vector128.ConvertToSingle(x.B), Vector128.ConvertToSingle(x.C), Vector128.ConvertToSingle(x.D));

    [MethodImpl(Inline)]
    public static IntegerQuad128 LoadPairs(sbyte* source)
    {
        (Vector128<short> a, Vector128<short> b) = Vector128.Widen(Vector128.Load(source));
        (Vector128<short> c, Vector128<short> d) = Vector128.Widen(Vector128.Load(source + 16));
        return new(a.AsInt32(), b.AsInt32(), c.AsInt32(), d.AsInt32());
    }

    [MethodImpl(Inline)]
    public static IntegerQuad128 BroadcastPair(short* source) => Broadcast(*(int*)source);

    [MethodImpl(Inline)]
    public static IntegerQuad128 MultiplyPairs(IntegerQuad128 x, IntegerQuad128 y)
        => new(MultiplyPairs(x.A, y.A), MultiplyPairs(x.B, y.B), MultiplyPairs(x.C, y.C), MultiplyPairs(x.D, y.D));

    [MethodImpl(Inline)]
    private static Vector128<int> MultiplyPairs(Vector128<int> a, Vector128<int> b)
    {
        if (Sse2.IsSupported) return Sse2.MultiplyAddAdjacent(a.AsInt16(), b.AsInt16());
        return (((a << 16) >> 16) * ((b << 16) >> 16)) + ((a >> 16) * (b >> 16));
    }

    [MethodImpl(Inline)]
    public static IntegerQuad128 Load(byte* source)
        => new(Vector128.Load((int*)source), Vector128.Load((int*)source + 4), Vector128.Load((int*)source + 8), Vector128.Load((int*)source + 12));

    [MethodImpl(Inline)]
    public static IntegerQuad128 BroadcastQuad(sbyte* source) => Broadcast(*(int*)source);

    [MethodImpl(Inline)]
    public static IntegerQuad128 LowNibbles(IntegerQuad128 x)
    {
        Vector128<int> mask = Vector128.Create(0x0F0F0F0F);
        return new(x.A & mask, x.B & mask, x.C & mask, x.D & mask);
    }

    [MethodImpl(Inline)]
    public static IntegerQuad128 HighNibbles(IntegerQuad128 x)
    {
        Vector128<int> mask = Vector128.Create(0x0F0F0F0F);
        return new((x.A >>> 4) & mask, (x.B >>> 4) & mask, (x.C >>> 4) & mask, (x.D >>> 4) & mask);
    }

    [MethodImpl(Inline)]
    public static IntegerQuad128 MultiplyQuads(IntegerQuad128 x, IntegerQuad128 y)
        => new(MultiplyQuads(x.A, y.A), MultiplyQuads(x.B, y.B), MultiplyQuads(x.C, y.C), MultiplyQuads(x.D, y.D));

    [MethodImpl(Inline)]
    private static Vector128<int> MultiplyQuads(Vector128<int> small, Vector128<int> signed)
    {
        if (Ssse3.IsSupported) return Ssse3.MultiplyAddAdjacent(small.AsByte(), signed.AsSByte()).AsInt32();
        Vector128<short> u = small.AsInt16(), s = signed.AsInt16();
        return (((u & Vector128.Create((short)255)) * ((s << 8) >> 8)) + ((u >>> 8) * (s >> 8))).AsInt32();
    }

    [MethodImpl(Inline)]
    public static IntegerQuad128 AddShort(IntegerQuad128 x, IntegerQuad128 y)
        => new(AddShort(x.A, y.A), AddShort(x.B, y.B), AddShort(x.C, y.C), AddShort(x.D, y.D));

    [MethodImpl(Inline)]
    private static Vector128<int> AddShort(Vector128<int> a, Vector128<int> b) => (a.AsInt16() + b.AsInt16()).AsInt32();

    [MethodImpl(Inline)]
    public static IntegerQuad128 SumPairs(IntegerQuad128 x) => MultiplyPairs(x, Broadcast(0x00010001));

    [MethodImpl(Inline)]
    public static IntegerQuad128 LoadBytes(byte* source)
    {
        (Vector128<ushort> low, Vector128<ushort> high) = Vector128.Widen(Vector128.Load(source));
        (Vector128<uint> a, Vector128<uint> b) = Vector128.Widen(low);
        (Vector128<uint> c, Vector128<uint> d) = Vector128.Widen(high);
        return new(a.AsInt32(), b.AsInt32(), c.AsInt32(), d.AsInt32());
    }

    [MethodImpl(Inline)]
    public static IntegerQuad128 ShiftRight4(IntegerQuad128 x) => new(x.A >>> 4, x.B >>> 4, x.C >>> 4, x.D >>> 4);

    public static Quad128 Look(Quad128 table, IntegerQuad128 index)
    {
        float* values = stackalloc float[Simd.Lanes];
        Simd128.Store(values, table);
        return new(Look(values, index.A), Look(values, index.B), Look(values, index.C), Look(values, index.D));
    }

    [MethodImpl(Inline)]
    private static Vector128<float> Look(float* table, Vector128<int> index) => Vector128.Create(
        table[index.GetElement(0) & 15], table[index.GetElement(1) & 15], table[index.GetElement(2) & 15], table[index.GetElement(3) & 15]);

    [MethodImpl(Inline)]
    public static Quad128 LoadFloat8(byte* source)
    {
        (Vector128<short> low, Vector128<short> high) = Vector128.Widen(Vector128.Load((sbyte*)source));
        (Vector128<int> a, Vector128<int> b) = Vector128.Widen(low);
        (Vector128<int> c, Vector128<int> d) = Vector128.Widen(high);
        return new(Float8(a), Float8(b), Float8(c), Float8(d));
    }

    // Exponent and fraction land 120 too low in a binary32; the multiplication is exact for subnormal values too.
    [MethodImpl(Inline)]
    private static Vector128<float> Float8(Vector128<int> code)
        => ((code << 20) & Vector128.Create(unchecked((int)0x87F00000))).AsSingle() * Vector128.Create(0x7B800000).AsSingle();
}
