using System.Runtime.InteropServices;

namespace ConvLLaVA.Kernels.Tests;

/// <summary>What the kernels call <c>storage</c>.</summary>
public enum Storage
{
    /// <summary>float.</summary>
    F32,

    /// <summary>IEEE half precision.</summary>
    F16,

    /// <summary>bfloat16.</summary>
    BF16,
}

/// <summary>Conversions and rounding of the storage types.</summary>
internal static class StorageExtensions
{
    /// <summary>All of them, or the one that <c>CONVLLAVA_TEST_STORAGE</c> names.</summary>
    public static readonly Storage[] All = Enum.TryParse(Environment.GetEnvironmentVariable("CONVLLAVA_TEST_STORAGE"), out Storage only) ? [only] : [Storage.F32, Storage.F16, Storage.BF16];

    /// <summary>Bytes of an element.</summary>
    public static int Size(this Storage storage) => storage == Storage.F32 ? 4 : 2;

    /// <summary>Elements of 16 bytes, <c>Pack&lt;storage&gt;::size</c>.</summary>
    public static int Pack(this Storage storage) => 16 / storage.Size();

    /// <summary>The compiler's option.</summary>
    public static string Define(this Storage storage) => $"-DSTORAGE_{storage}=1";

    /// <summary>Half a unit in the last place of a number as large as <paramref name="magnitude"/>: what one rounding may cost.</summary>
    public static double HalfUlp(this Storage storage, double magnitude)
    {
        (int bits, int smallest) = storage switch { Storage.F32 => (24, -126), Storage.F16 => (11, -14), _ => (8, -126) };
        int exponent = magnitude == 0 ? smallest : Math.Max(smallest, (int)Math.Floor(Math.Log2(Math.Abs(magnitude))));
        return Math.ScaleB(1, exponent - bits);
    }

    /// <summary>The nearest number of that type, ties to even.</summary>
    public static float Round(this Storage storage, double value) => storage switch
    {
        Storage.F32 => (float)value,
        Storage.F16 => (float)(Half)value,
        _ => FromBFloat16(ToBFloat16((float)value)),
    };

    /// <summary>Numbers as they lie in memory.</summary>
    public static byte[] Encode(this Storage storage, ReadOnlySpan<float> values)
    {
        if (storage == Storage.F32) return MemoryMarshal.AsBytes(values).ToArray();
        var bits = new ushort[values.Length];
        for (int i = 0; i < bits.Length; i++) bits[i] = storage == Storage.F16 ? BitConverter.HalfToUInt16Bits((Half)values[i]) : ToBFloat16(values[i]);
        return MemoryMarshal.AsBytes(bits.AsSpan()).ToArray();
    }

    /// <summary>Numbers from memory.</summary>
    public static float[] Decode(this Storage storage, ReadOnlySpan<byte> bytes)
    {
        if (storage == Storage.F32) return MemoryMarshal.Cast<byte, float>(bytes).ToArray();
        ReadOnlySpan<ushort> bits = MemoryMarshal.Cast<byte, ushort>(bytes);
        var values = new float[bits.Length];
        for (int i = 0; i < values.Length; i++) values[i] = storage == Storage.F16 ? (float)BitConverter.UInt16BitsToHalf(bits[i]) : FromBFloat16(bits[i]);
        return values;
    }

    private static float FromBFloat16(ushort bits) => BitConverter.UInt32BitsToSingle((uint)bits << 16);

    private static ushort ToBFloat16(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        if (float.IsNaN(value)) return (ushort)((bits >> 16) | 0x40);
        return (ushort)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}
