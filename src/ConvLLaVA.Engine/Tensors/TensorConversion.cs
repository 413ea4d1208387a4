using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace ConvLLaVA.Engine.Tensors;

/// <summary>Conversions between the float types of weights: widening is exact, narrowing rounds to nearest, ties to even, as PyTorch
/// does. NaN stays NaN, values beyond the range become infinite, subnormals are kept.</summary>
public static unsafe class TensorConversion
{
    /// <summary>The elements of a float tensor, widened to float32.</summary>
    /// <exception cref="ArgumentException">The tensor is of an integer type or too large for one array.</exception>
    public static float[] ToFloat32(WeightTensor tensor)
    {
        if (tensor.ElementCount > Array.MaxLength) throw new ArgumentException($"{tensor} does not fit into one array.", nameof(tensor));
        float[] values = new float[tensor.ElementCount];
        ToFloat32(tensor, 0, values);
        return values;
    }

    /// <summary>Widens <paramref name="destination"/>.Length elements from element <paramref name="start"/> on, in row-major order.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within the tensor.</exception>
    /// <exception cref="ArgumentException">The tensor is of an integer type.</exception>
    public static void ToFloat32(WeightTensor tensor, long start, Span<float> destination) =>
        Convert(Elements(tensor, start, destination.Length), tensor.DType, MemoryMarshal.AsBytes(destination), DType.Float32);

    /// <summary>Converts elements of a tensor from element <paramref name="start"/> on until <paramref name="destination"/> is full.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within the tensor.</exception>
    /// <exception cref="ArgumentException">A type is not a float type, or the destination does not hold a whole number of elements.</exception>
    public static void Convert(WeightTensor tensor, long start, Span<byte> destination, DType to)
    {
        int count = destination.Length / to.SizeInBytes();
        Convert(Elements(tensor, start, count), tensor.DType, destination, to);
    }

    /// <summary>Converts little-endian elements of type <paramref name="from"/> to type <paramref name="to"/>. The spans must not overlap.</summary>
    /// <exception cref="ArgumentException">A type is not a float type, or the spans hold different numbers of elements.</exception>
    public static void Convert(ReadOnlySpan<byte> source, DType from, Span<byte> destination, DType to)
    {
        if (!from.IsFloating() || !to.IsFloating()) throw new ArgumentException($"Cannot convert {from.Name()} to {to.Name()}: only float types convert.", nameof(to));
        int count = source.Length / from.SizeInBytes();
        if ((long)count * from.SizeInBytes() != source.Length || (long)count * to.SizeInBytes() != destination.Length)
        {
            throw new ArgumentException($"{source.Length} bytes of {from.Name()} do not fill {destination.Length} bytes of {to.Name()}.", nameof(destination));
        }
        if (from == to)
        {
            source.CopyTo(destination);
            return;
        }
        // Elements of a mapped file need not be aligned, so everything goes through addresses.
        fixed (byte* input = source, output = destination)
        {
            if (from == DType.Float32)
            {
                Narrow((float*)input, (ushort*)output, count, to);
            }
            else if (to == DType.Float32)
            {
                Widen((ushort*)input, (float*)output, count, from);
            }
            else
            {
                float* block = stackalloc float[256];
                for (int i = 0; i < count; i += 256)
                {
                    int length = Math.Min(256, count - i);
                    Widen((ushort*)input + i, block, length, from);
                    Narrow(block, (ushort*)output + i, length, to);
                }
            }
        }
    }

    /// <summary>The bfloat16 nearest to <paramref name="value"/>, as its bits.</summary>
    public static ushort ToBFloat16(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        if (float.IsNaN(value)) return (ushort)((bits >> 16) | 0x40);
        return (ushort)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }

    /// <summary>The value of a bfloat16 given by its bits.</summary>
    public static float FromBFloat16(ushort bits) => BitConverter.UInt32BitsToSingle((uint)bits << 16);

    private static ReadOnlySpan<byte> Elements(WeightTensor tensor, long start, int count)
    {
        if (start < 0 || start > tensor.ElementCount - count) throw new ArgumentOutOfRangeException(nameof(start), start, $"{tensor} does not have {count} elements from there on.");
        int size = tensor.DType.SizeInBytes();
        return new ReadOnlySpan<byte>((byte*)tensor.Data + (start * size), checked(count * size));
    }

    private static void Widen(ushort* source, float* destination, int count, DType from)
    {
        int i = 0;
        for (; i <= count - 8; i += 8)
        {
            Vector256<uint> bits = Vector256.WidenLower(Vector128.Load(source + i).ToVector256Unsafe());
            Vector256<float> values = from == DType.BFloat16 ? Vector256.ShiftLeft(bits, 16).AsSingle() : HalfToSingle(bits);
            values.Store(destination + i);
        }
        for (; i < count; i++) destination[i] = from == DType.BFloat16 ? FromBFloat16(source[i]) : (float)BitConverter.UInt16BitsToHalf(source[i]);
    }

    private static void Narrow(float* source, ushort* destination, int count, DType to)
    {
        int i = 0;
        for (; i <= count - 8; i += 8)
        {
            Vector256<uint> bits = Vector256.Load(source + i).AsUInt32();
            Vector256<uint> result = to == DType.BFloat16 ? SingleToBFloat16(bits) : SingleToHalf(bits);
            Vector256.Narrow(result, result).GetLower().Store(destination + i);
        }
        for (; i < count; i++) destination[i] = to == DType.BFloat16 ? ToBFloat16(source[i]) : BitConverter.HalfToUInt16Bits((Half)source[i]);
    }

    private static Vector256<uint> SingleToBFloat16(Vector256<uint> bits)
    {
        Vector256<uint> odd = Vector256.ShiftRightLogical(bits, 16) & Vector256.Create(1u);
        Vector256<uint> rounded = Vector256.ShiftRightLogical(bits + Vector256.Create(0x7fffu) + odd, 16);
        Vector256<uint> quiet = Vector256.ShiftRightLogical(bits, 16) | Vector256.Create(0x40u);
        return Vector256.ConditionalSelect(IsNaN(bits), quiet, rounded);
    }

    /// <summary>Half bits to float: exponent and mantissa are moved in place and scaled by 2^112, which also normalises subnormals
    /// exactly; an exponent of all ones is put back to all ones.</summary>
    private static Vector256<float> HalfToSingle(Vector256<uint> bits)
    {
        Vector256<uint> magnitude = bits & Vector256.Create(0x7fffu);
        Vector256<uint> sign = Vector256.ShiftLeft(bits & Vector256.Create(0x8000u), 16);
        Vector256<float> scaled = Vector256.ShiftLeft(magnitude, 13).AsSingle() * Vector256.Create(0x77800000u).AsSingle();
        Vector256<uint> special = Vector256.GreaterThan(magnitude.AsInt32(), Vector256.Create(0x7bff)).AsUInt32() & Vector256.Create(0x7f800000u);
        return (scaled.AsUInt32() | special | sign).AsSingle();
    }

    /// <summary>Float bits to half bits. A result below the smallest normal half is rounded by adding 0.5, whose last mantissa bit
    /// stands for 2^-24; a normal one by adding half a unit in the last place, less one for ties on an even bit.</summary>
    private static Vector256<uint> SingleToHalf(Vector256<uint> bits)
    {
        Vector256<uint> sign = Vector256.ShiftRightLogical(bits & Vector256.Create(0x80000000u), 16);
        Vector256<uint> magnitude = bits & Vector256.Create(0x7fffffffu);
        Vector256<uint> half = Vector256.Create(0x3f000000u);
        Vector256<uint> small = (magnitude.AsSingle() + half.AsSingle()).AsUInt32() - half;
        Vector256<uint> odd = Vector256.ShiftRightLogical(magnitude, 13) & Vector256.Create(1u);
        // 0xc8000000 takes 112 off the exponent, modulo 2^32.
        Vector256<uint> normal = Vector256.ShiftRightLogical(magnitude + Vector256.Create(0xc8000fffu) + odd, 13);
        Vector256<uint> finite = Vector256.ConditionalSelect(Vector256.LessThan(magnitude.AsInt32(), Vector256.Create(0x38800000)).AsUInt32(), small, normal);
        // From 65520 on everything rounds to infinity.
        Vector256<uint> huge = Vector256.GreaterThan(magnitude.AsInt32(), Vector256.Create(0x477fefff)).AsUInt32();
        Vector256<uint> result = Vector256.ConditionalSelect(huge, Vector256.Create(0x7c00u), finite);
        return sign | Vector256.ConditionalSelect(IsNaN(bits), Vector256.Create(0x7e00u), result);
    }

    private static Vector256<uint> IsNaN(Vector256<uint> bits) =>
        Vector256.GreaterThan((bits & Vector256.Create(0x7fffffffu)).AsInt32(), Vector256.Create(0x7f800000)).AsUInt32();
}
