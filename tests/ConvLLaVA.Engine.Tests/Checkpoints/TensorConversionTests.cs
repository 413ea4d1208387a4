using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

public sealed class TensorConversionTests
{
    private static readonly float[] Hard = HardValues();

    [Fact]
    public void Every_half_widens_exactly()
    {
        ushort[] all = [.. Enumerable.Range(0, 65536).Select(bits => (ushort)bits)];
        float[] widened = new float[all.Length];
        TensorConversion.Convert(MemoryMarshal.AsBytes<ushort>(all), DType.Float16, MemoryMarshal.AsBytes(widened.AsSpan()), DType.Float32);
        for (int i = 0; i < all.Length; i++) AssertSame((float)BitConverter.UInt16BitsToHalf(all[i]), widened[i]);
    }

    [Fact]
    public void Every_bfloat16_widens_exactly()
    {
        ushort[] all = [.. Enumerable.Range(0, 65536).Select(bits => (ushort)bits)];
        float[] widened = new float[all.Length];
        TensorConversion.Convert(MemoryMarshal.AsBytes<ushort>(all), DType.BFloat16, MemoryMarshal.AsBytes(widened.AsSpan()), DType.Float32);
        for (int i = 0; i < all.Length; i++) AssertSame(BitConverter.UInt32BitsToSingle((uint)i << 16), widened[i]);
    }

    [Fact]
    public void Narrowing_to_half_equals_the_framework()
    {
        ushort[] narrowed = new ushort[Hard.Length];
        TensorConversion.Convert(MemoryMarshal.AsBytes<float>(Hard), DType.Float32, MemoryMarshal.AsBytes(narrowed.AsSpan()), DType.Float16);
        for (int i = 0; i < Hard.Length; i++) AssertSame((float)(Half)Hard[i], (float)BitConverter.UInt16BitsToHalf(narrowed[i]));
    }

    [Fact]
    public void Narrowing_to_bfloat16_takes_the_nearest_with_ties_to_even()
    {
        ushort[] narrowed = new ushort[Hard.Length];
        TensorConversion.Convert(MemoryMarshal.AsBytes<float>(Hard), DType.Float32, MemoryMarshal.AsBytes(narrowed.AsSpan()), DType.BFloat16);
        for (int i = 0; i < Hard.Length; i++)
        {
            AssertSame(Nearest(Hard[i]), TensorConversion.FromBFloat16(narrowed[i]));
            AssertSame(Nearest(Hard[i]), TensorConversion.FromBFloat16(TensorConversion.ToBFloat16(Hard[i])));
        }
    }

    [Fact]
    public void Between_half_and_bfloat16_there_is_one_rounding()
    {
        ushort[] all = [.. Enumerable.Range(0, 65536).Select(bits => (ushort)bits)];
        ushort[] converted = new ushort[all.Length];
        TensorConversion.Convert(MemoryMarshal.AsBytes<ushort>(all), DType.BFloat16, MemoryMarshal.AsBytes(converted.AsSpan()), DType.Float16);
        for (int i = 0; i < all.Length; i++) AssertSame((float)(Half)TensorConversion.FromBFloat16(all[i]), (float)BitConverter.UInt16BitsToHalf(converted[i]));
    }

    [Fact]
    public void Integers_do_not_convert() =>
        Assert.Throws<ArgumentException>(() => TensorConversion.Convert(new byte[8], DType.Int64, new byte[4], DType.Float32));

    [Fact]
    public void Spans_must_hold_the_same_number_of_elements() =>
        Assert.Throws<ArgumentException>(() => TensorConversion.Convert(new byte[6], DType.Float16, new byte[8], DType.Float32));

    [Fact]
    public unsafe void A_range_beyond_the_tensor_is_refused()
    {
        float* data = stackalloc float[3] { 1, 2, 3 };
        WeightTensor tensor = new("t", DType.Float32, [3], (nint)data, "memory");
        float[] two = new float[2];
        TensorConversion.ToFloat32(tensor, 1, two);
        Assert.Equal([2f, 3f], two);
        Assert.Throws<ArgumentOutOfRangeException>(() => TensorConversion.ToFloat32(tensor, 2, two));
    }

    /// <summary>The bfloat16 nearest to a float, found by comparing distances in float64.</summary>
    private static float Nearest(float value)
    {
        if (float.IsNaN(value) || float.IsInfinity(value)) return value;
        uint low = BitConverter.SingleToUInt32Bits(value) & 0xffff0000;
        float below = BitConverter.UInt32BitsToSingle(low), above = BitConverter.UInt32BitsToSingle(low + 0x10000);
        // Beyond the largest bfloat16 the next step would be 2^128.
        double up = float.IsInfinity(above) ? Math.CopySign(Math.Pow(2, 128), value) : above;
        double toBelow = Math.Abs((double)value - below), toAbove = Math.Abs(up - value);
        bool evenBelow = ((low >> 16) & 1) == 0;
        return toBelow < toAbove || (toBelow == toAbove && evenBelow) ? below : above;
    }

    private static float[] HardValues()
    {
        Random random = new(17);
        List<float> values = [0f, -0f, float.NaN, -float.NaN, float.PositiveInfinity, float.NegativeInfinity, float.MaxValue, float.Epsilon, -float.Epsilon,
            65504f, 65519.996f, 65520f, -65520f, 65536f, 5.9604645e-8f, 2.9802322e-8f, 2.9802326e-8f, 6.1035156e-5f, 6.0975552e-5f, 1e-6f, 3.3895314e38f, 3.4e38f,
            BitConverter.UInt32BitsToSingle(0x7f800001), BitConverter.UInt32BitsToSingle(0xffffffff)];
        // Around every half and every tie between two of them.
        for (int bits = 0; bits < 0x7c00; bits += 7)
        {
            float half = (float)BitConverter.UInt16BitsToHalf((ushort)bits), next = (float)BitConverter.UInt16BitsToHalf((ushort)(bits + 1));
            if (float.IsInfinity(next)) continue;
            float tie = (half + next) / 2;
            values.AddRange([half, tie, -tie, MathF.BitIncrement(tie), MathF.BitDecrement(tie)]);
        }
        for (int i = 0; i < 100_003; i++) values.Add(BitConverter.Int32BitsToSingle(random.Next(int.MinValue, int.MaxValue)));
        for (int i = 0; i < 20_000; i++) values.Add(BitConverter.UInt32BitsToSingle(((uint)random.Next() << 16) | 0x8000));
        return [.. values];
    }

    private static void AssertSame(float expected, float actual)
    {
        if (float.IsNaN(expected) ? float.IsNaN(actual) : BitConverter.SingleToInt32Bits(expected) == BitConverter.SingleToInt32Bits(actual)) return;
        Assert.Fail($"Expected {expected:R}, got {actual:R}.");
    }
}
