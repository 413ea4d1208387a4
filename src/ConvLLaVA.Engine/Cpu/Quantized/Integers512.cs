using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Cpu;

/// <summary><see cref="IIntegers{I, V}"/> on AVX-512.</summary>
internal readonly unsafe struct Integers512 : IIntegers<Vector512<int>, Vector512<float>>
{
    private const MethodImplOptions Inline = MethodImplOptions.AggressiveInlining;

    public static Vector512<int> Zero => Vector512<int>.Zero;

    [MethodImpl(Inline)]
    public static Vector512<int> Broadcast(int value) => Vector512.Create(value);

    [MethodImpl(Inline)]
    public static Vector512<int> Add(Vector512<int> a, Vector512<int> b) => a + b;

    [MethodImpl(Inline)]
    public static Vector512<int> Subtract(Vector512<int> a, Vector512<int> b) => a - b;

    [MethodImpl(Inline)]
    public static Vector512<float> ToFloat(Vector512<int> value) => Avx512F.ConvertToVector512Single(value);

    [MethodImpl(Inline)]
    public static Vector512<int> LoadPairs(sbyte* source) => Avx512BW.ConvertToVector512Int16(Vector256.Load(source)).AsInt32();

    [MethodImpl(Inline)]
    public static Vector512<int> BroadcastPair(short* source) => Vector512.Create(*(int*)source);

    [MethodImpl(Inline)]
    public static Vector512<int> MultiplyPairs(Vector512<int> a, Vector512<int> b) => Avx512BW.MultiplyAddAdjacent(a.AsInt16(), b.AsInt16());

    [MethodImpl(Inline)]
    public static Vector512<int> Load(byte* source) => Vector512.Load((int*)source);

    [MethodImpl(Inline)]
    public static Vector512<int> BroadcastQuad(sbyte* source) => Vector512.Create(*(int*)source);

    [MethodImpl(Inline)]
    public static Vector512<int> LowNibbles(Vector512<int> value) => value & Vector512.Create(0x0F0F0F0F);

    [MethodImpl(Inline)]
    public static Vector512<int> HighNibbles(Vector512<int> value) => (value >>> 4) & Vector512.Create(0x0F0F0F0F);

    [MethodImpl(Inline)]
    public static Vector512<int> MultiplyQuads(Vector512<int> small, Vector512<int> signed)
        => Avx512BW.MultiplyAddAdjacent(small.AsByte(), signed.AsSByte()).AsInt32();

    [MethodImpl(Inline)]
    public static Vector512<int> AddShort(Vector512<int> a, Vector512<int> b) => (a.AsInt16() + b.AsInt16()).AsInt32();

    [MethodImpl(Inline)]
    public static Vector512<int> SumPairs(Vector512<int> value) => Avx512BW.MultiplyAddAdjacent(value.AsInt16(), Vector512.Create((short)1));

    [MethodImpl(Inline)]
    public static Vector512<int> LoadBytes(byte* source) => Avx512F.ConvertToVector512Int32(Vector128.Load(source));

    [MethodImpl(Inline)]
    public static Vector512<int> ShiftRight4(Vector512<int> value) => value >>> 4;

    [MethodImpl(Inline)]
    public static Vector512<float> Look(Vector512<float> table, Vector512<int> index) => Avx512F.PermuteVar16x32(table, index);

    // Exponent and fraction land 120 too low in a binary32; the multiplication is exact for subnormal values too.
    [MethodImpl(Inline)]
    public static Vector512<float> LoadFloat8(byte* source)
    {
        Vector512<int> bits = (Avx512F.ConvertToVector512Int32(Vector128.Load((sbyte*)source)) << 20) & Vector512.Create(unchecked((int)0x87F00000));
        return bits.AsSingle() * Vector512.Create(0x7B800000).AsSingle();
    }
}
