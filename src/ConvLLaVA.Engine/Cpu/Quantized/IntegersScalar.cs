using System.Runtime.CompilerServices;
using ConvLLaVA.Engine.Quantization;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Sixteen 32-bit integers in memory.</summary>
[InlineArray(Simd.Lanes)]
internal struct IntegerLanes16
{
    private int _first;
}

/// <summary><see cref="IIntegers{I, V}"/> one lane at a time: slow, for machines without vectors and as a check of the others.</summary>
internal readonly unsafe struct IntegersScalar : IIntegers<IntegerLanes16, Lanes16>
{
    public static IntegerLanes16 Zero => default;

    public static IntegerLanes16 Broadcast(int value)
    {
        IntegerLanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = value;
        return r;
    }

    public static IntegerLanes16 Add(IntegerLanes16 a, IntegerLanes16 b)
    {
        for (int i = 0; i < Simd.Lanes; i++) a[i] += b[i];
        return a;
    }

    public static IntegerLanes16 Subtract(IntegerLanes16 a, IntegerLanes16 b)
    {
        for (int i = 0; i < Simd.Lanes; i++) a[i] -= b[i];
        return a;
    }

    public static Lanes16 ToFloat(IntegerLanes16 value)
    {
        Lanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = value[i];
        return r;
    }

    public static IntegerLanes16 LoadPairs(sbyte* source)
    {
        IntegerLanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = Pair(source[2 * i], source[(2 * i) + 1]);
        return r;
    }

    public static IntegerLanes16 BroadcastPair(short* source) => Broadcast(Pair(source[0], source[1]));

    public static IntegerLanes16 MultiplyPairs(IntegerLanes16 a, IntegerLanes16 b)
    {
        for (int i = 0; i < Simd.Lanes; i++) a[i] = ((short)a[i] * (short)b[i]) + ((a[i] >> 16) * (b[i] >> 16));
        return a;
    }

    public static IntegerLanes16 Load(byte* source)
    {
        IntegerLanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = ((int*)source)[i];
        return r;
    }

    public static IntegerLanes16 BroadcastQuad(sbyte* source) => Broadcast(*(int*)source);

    public static IntegerLanes16 LowNibbles(IntegerLanes16 value)
    {
        for (int i = 0; i < Simd.Lanes; i++) value[i] &= 0x0F0F0F0F;
        return value;
    }

    public static IntegerLanes16 HighNibbles(IntegerLanes16 value)
    {
        for (int i = 0; i < Simd.Lanes; i++) value[i] = (value[i] >>> 4) & 0x0F0F0F0F;
        return value;
    }

    public static IntegerLanes16 MultiplyQuads(IntegerLanes16 small, IntegerLanes16 signed)
    {
        IntegerLanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++)
        {
            int low = ((byte)small[i] * (sbyte)signed[i]) + ((byte)(small[i] >> 8) * (sbyte)(signed[i] >> 8));
            int high = ((byte)(small[i] >> 16) * (sbyte)(signed[i] >> 16)) + ((byte)(small[i] >> 24) * (sbyte)(signed[i] >> 24));
            r[i] = Pair(low, high);
        }
        return r;
    }

    public static IntegerLanes16 AddShort(IntegerLanes16 a, IntegerLanes16 b)
    {
        for (int i = 0; i < Simd.Lanes; i++) a[i] = Pair(a[i] + b[i], (a[i] >> 16) + (b[i] >> 16));
        return a;
    }

    public static IntegerLanes16 SumPairs(IntegerLanes16 value)
    {
        for (int i = 0; i < Simd.Lanes; i++) value[i] = (short)value[i] + (value[i] >> 16);
        return value;
    }

    public static IntegerLanes16 LoadBytes(byte* source)
    {
        IntegerLanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = source[i];
        return r;
    }

    public static IntegerLanes16 ShiftRight4(IntegerLanes16 value)
    {
        for (int i = 0; i < Simd.Lanes; i++) value[i] >>>= 4;
        return value;
    }

    public static Lanes16 Look(Lanes16 table, IntegerLanes16 index)
    {
        Lanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = table[index[i] & 15];
        return r;
    }

    public static Lanes16 LoadFloat8(byte* source)
    {
        Lanes16 r = default;
        for (int i = 0; i < Simd.Lanes; i++) r[i] = Float8.ToSingle(source[i]);
        return r;
    }

    private static int Pair(int low, int high) => (int)(ushort)low | (high << 16);
}
