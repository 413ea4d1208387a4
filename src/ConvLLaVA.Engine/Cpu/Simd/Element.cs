using System.Runtime.CompilerServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>How weights of one stored type are widened to float.</summary>
internal unsafe interface IElement
{
    /// <summary>Bytes of one element.</summary>
    static abstract int Size { get; }

    /// <summary>Whether they come from memory, so that it pays to ask for them ahead.</summary>
    static abstract bool Streams { get; }

    /// <summary>Widens 16 elements (exact).</summary>
    static abstract V Load<V, S>(byte* source) where V : struct where S : struct, ISimd<V>;

    /// <summary>Widens the first <paramref name="count"/> (1..15) elements; the other lanes are zero.</summary>
    static abstract V LoadPartial<V, S>(byte* source, int count) where V : struct where S : struct, ISimd<V>;
}

/// <summary>Stored binary32.</summary>
internal readonly unsafe struct Float32Element : IElement
{
    public static int Size => 4;

    public static bool Streams => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Load<V, S>(byte* source) where V : struct where S : struct, ISimd<V> => S.Load((float*)source);

    public static V LoadPartial<V, S>(byte* source, int count) where V : struct where S : struct, ISimd<V>
        => Simd.LoadPartial<V, S>((float*)source, count);
}

/// <summary>Stored bfloat16.</summary>
internal readonly unsafe struct BFloat16Element : IElement
{
    public static int Size => 2;

    public static bool Streams => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Load<V, S>(byte* source) where V : struct where S : struct, ISimd<V> => S.LoadBFloat16((ushort*)source);

    public static V LoadPartial<V, S>(byte* source, int count) where V : struct where S : struct, ISimd<V>
    {
        ushort* padded = stackalloc ushort[Simd.Lanes];
        for (int i = 0; i < Simd.Lanes; i++) padded[i] = i < count ? ((ushort*)source)[i] : (ushort)0;
        return S.LoadBFloat16(padded);
    }
}

/// <summary>Stored binary16.</summary>
internal readonly unsafe struct HalfElement : IElement
{
    public static int Size => 2;

    public static bool Streams => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Load<V, S>(byte* source) where V : struct where S : struct, ISimd<V> => S.LoadHalf((ushort*)source);

    public static V LoadPartial<V, S>(byte* source, int count) where V : struct where S : struct, ISimd<V>
    {
        ushort* padded = stackalloc ushort[Simd.Lanes];
        for (int i = 0; i < Simd.Lanes; i++) padded[i] = i < count ? ((ushort*)source)[i] : (ushort)0;
        return S.LoadHalf(padded);
    }
}

/// <summary>Stored binary16, none of it infinite or NaN: half the work.</summary>
internal readonly unsafe struct FiniteHalfElement : IElement
{
    public static int Size => 2;

    public static bool Streams => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Load<V, S>(byte* source) where V : struct where S : struct, ISimd<V> => S.LoadFiniteHalf((ushort*)source);

    public static V LoadPartial<V, S>(byte* source, int count) where V : struct where S : struct, ISimd<V> => HalfElement.LoadPartial<V, S>(source, count);
}

/// <summary>Widened weights in a panel, which lies in a cache.</summary>
internal readonly unsafe struct PackedElement : IElement
{
    public static int Size => 4;

    public static bool Streams => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Load<V, S>(byte* source) where V : struct where S : struct, ISimd<V> => S.Load((float*)source);

    public static V LoadPartial<V, S>(byte* source, int count) where V : struct where S : struct, ISimd<V>
        => Simd.LoadPartial<V, S>((float*)source, count);
}
