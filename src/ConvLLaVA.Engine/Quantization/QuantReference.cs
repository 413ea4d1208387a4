using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Quantization;

/// <summary>The formats' definition in code: the slow and obvious encoder and decoder that all others are tested against.</summary>
public static class QuantReference
{
    /// <summary>Encodes a row of a format whose scales belong to rows or groups of a row: all but nf4.</summary>
    /// <param name="format">Format.</param>
    /// <param name="row">Finite weights. [in]</param>
    /// <param name="codes">[in] or [in / 2] bytes.</param>
    /// <param name="scales">[groups] float16 or one float32, as bytes.</param>
    public static void EncodeRow(QuantFormat format, ReadOnlySpan<float> row, Span<byte> codes, Span<byte> scales)
    {
        switch (format)
        {
            case QuantFormat.Q8:
                Span<Half> halves = MemoryMarshal.Cast<byte, Half>(scales);
                for (int g = 0; g < halves.Length; g++)
                {
                    ReadOnlySpan<float> group = Group(row, g, 32);
                    halves[g] = GroupScale(AbsMax(group) / 127);
                    EncodeInt8(group, (float)halves[g], codes[(g * 32)..]);
                }
                break;
            case QuantFormat.Q8Row:
                float step = AbsMax(row) / 127;
                MemoryMarshal.Write(scales, step);
                EncodeInt8(row, step, codes);
                break;
            case QuantFormat.Int8:
                float largest = AbsMax(row);
                MemoryMarshal.Write(scales, largest);
                EncodeInt8(row, largest / 127, codes);
                break;
            case QuantFormat.Fp8:
                float unit = AbsMax(row) / Float8.Largest;
                MemoryMarshal.Write(scales, unit);
                for (int i = 0; i < row.Length; i++) codes[i] = Float8.FromSingle(unit == 0 ? 0 : row[i] / unit);
                break;
            case QuantFormat.Q4 or QuantFormat.Q4Group128:
                Span<Half> four = MemoryMarshal.Cast<byte, Half>(scales);
                int size = format.GroupSize();
                for (int g = 0; g < four.Length; g++)
                {
                    ReadOnlySpan<float> group = Group(row, g, size);
                    four[g] = Q4Search.Scale(group);
                    float inverse = Q4Search.Inverse((float)four[g]);
                    for (int i = 0; i < group.Length; i++)
                    {
                        int at = (g * size) + i, nibble = Q4Search.Code(group[i], inverse) + 8;
                        codes[at / 2] = (byte)(at % 2 == 0 ? nibble : codes[at / 2] | (nibble << 4));
                    }
                }
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(format), format, "Blocks of this format do not belong to rows.");
        }
    }

    /// <summary>Encodes a whole nf4 matrix.</summary>
    /// <param name="matrix">Finite weights, flattened; their number is even. [out * in]</param>
    /// <param name="codes">[out * in / 2]</param>
    /// <param name="scales">Codes of the blocks' scales. [blocks]</param>
    /// <param name="absMax">[blocks / 256]</param>
    /// <returns>The offset.</returns>
    public static float EncodeNf4(ReadOnlySpan<float> matrix, Span<byte> codes, Span<byte> scales, Span<float> absMax)
    {
        float[] largest = new float[scales.Length];
        for (int b = 0; b < largest.Length; b++)
        {
            ReadOnlySpan<float> block = Group(matrix, b, 64);
            largest[b] = AbsMax(block);
            float inverse = largest[b] == 0 ? 0 : 1 / largest[b];
            for (int i = 0; i < block.Length; i++)
            {
                int at = (b * 64) + i, code = Nf4.Nearest(Nf4.Values, block[i] * inverse);
                codes[at / 2] = (byte)(at % 2 == 0 ? code << 4 : codes[at / 2] | code);
            }
        }
        return EncodeNf4Scales(largest, scales, absMax);
    }

    /// <summary>Encodes the scales of nf4 in 8 bits: less their mean, in blocks of 256. Returns the mean. <paramref name="largest"/> is
    /// overwritten.</summary>
    internal static float EncodeNf4Scales(Span<float> largest, Span<byte> scales, Span<float> absMax)
    {
        double sum = 0;
        foreach (float value in largest) sum += value;
        float mean = (float)(sum / largest.Length);
        foreach (ref float value in largest) value -= mean;
        for (int b = 0; b < absMax.Length; b++)
        {
            ReadOnlySpan<float> block = Group(largest, b, QuantLayout.ScalesPerAbsMax);
            absMax[b] = AbsMax(block);
            for (int i = 0; i < block.Length; i++)
                scales[(b * QuantLayout.ScalesPerAbsMax) + i] = (byte)Nf4.Nearest(Nf4.ScaleMap, absMax[b] == 0 ? 0 : block[i] / absMax[b]);
        }
        return mean;
    }

    /// <summary>Decodes a row.</summary>
    /// <param name="tensor">The matrix.</param>
    /// <param name="row">Its number.</param>
    /// <param name="destination">[in]</param>
    public static unsafe void DecodeRow(QuantizedTensor tensor, int row, Span<float> destination)
    {
        QuantLayout layout = tensor.Layout;
        QuantizedBytes bytes = tensor.Bytes;
        byte* codes = (byte*)bytes.Codes + ((long)row * layout.RowBytes);
        float rowScale = layout.ScaleType == Tensors.DType.Float32 ? ((float*)bytes.Scales)[row] : 0;
        Half* groupScales = (Half*)bytes.Scales + ((long)row * layout.ScalesPerRow);
        int size = layout.Format.GroupSize();
        for (int i = 0; i < layout.Columns; i++)
        {
            int high = codes[layout.Format.IsFourBit() ? i / 2 : i] >> 4, low = codes[layout.Format.IsFourBit() ? i / 2 : i] & 15;
            destination[i] = layout.Format switch
            {
                QuantFormat.Q8 => (sbyte)codes[i] * (float)groupScales[i / 32],
                QuantFormat.Q8Row => (sbyte)codes[i] * rowScale,
                QuantFormat.Int8 => (sbyte)codes[i] * (rowScale / 127),
                QuantFormat.Fp8 => Float8.ToSingle(codes[i]) * rowScale,
                QuantFormat.Nf4 => Nf4.Values[i % 2 == 0 ? high : low] * Scale(bytes, (((long)row * layout.Columns) + i) / 64),
                _ => ((i % 2 == 0 ? low : high) - 8) * (float)groupScales[i / size],
            };
        }

        static float Scale(QuantizedBytes bytes, long block)
            => (Nf4.ScaleMap[((byte*)bytes.Scales)[block]] * ((float*)bytes.AbsMax)[block / QuantLayout.ScalesPerAbsMax]) + bytes.Offset;
    }

    /// <summary>A scale as float16; one that is too large for it becomes the largest.</summary>
    internal static Half GroupScale(float scale) => (Half)Math.Clamp(scale, -65504f, 65504f);

    internal static float AbsMax(ReadOnlySpan<float> values)
    {
        float largest = 0;
        foreach (float value in values) largest = MathF.Max(largest, MathF.Abs(value));
        return largest;
    }

    private static void EncodeInt8(ReadOnlySpan<float> values, float scale, Span<byte> codes)
    {
        for (int i = 0; i < values.Length; i++)
            codes[i] = (byte)(sbyte)(scale == 0 ? 0 : Math.Clamp(MathF.Round(values[i] / scale), -127, 127));
    }

    private static ReadOnlySpan<float> Group(ReadOnlySpan<float> values, int index, int size)
        => values.Slice(index * size, Math.Min(size, values.Length - (index * size)));
}
