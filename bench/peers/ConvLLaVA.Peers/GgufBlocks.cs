using System.Buffers.Binary;
using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Peers;

/// <summary>Formats of a GGUF file's tensors, by their numbers there.</summary>
internal enum GgufType
{
    F32 = 0,
    F16 = 1,

    /// <summary>Blocks of 32: a half-precision scale and 4-bit numbers around 8.</summary>
    Q4_0 = 2,

    /// <summary>Blocks of 32: a half-precision scale and signed bytes.</summary>
    Q8_0 = 8,
}

/// <summary>Encodes fp32 tensors in those formats.</summary>
internal static unsafe class GgufBlocks
{
    private const int Block = 32;

    /// <summary>Bytes of so many elements.</summary>
    public static long Bytes(GgufType type, long elements) => type switch
    {
        GgufType.F32 => 4 * elements,
        GgufType.F16 => 2 * elements,
        GgufType.Q8_0 => elements / Block * (2 + Block),
        _ => elements / Block * (2 + (Block / 2)),
    };

    /// <summary>The tensor's bytes in the file.</summary>
    /// <param name="tensor">Source, Float32. [..., columns]</param>
    /// <param name="type">Format.</param>
    /// <param name="heads">Over 0: of each head's rows the two halves are interleaved, since the file's rotary pairs are neighbours.</param>
    public static byte[] Encode(WeightTensor tensor, GgufType type, int heads)
    {
        int columns = (int)tensor.Shape[^1], rows = (int)(tensor.ElementCount / columns), half = heads > 0 ? rows / heads / 2 : 0;
        var data = (float*)tensor.Data;
        long rowBytes = Bytes(type, columns);
        byte[] encoded = GC.AllocateUninitializedArray<byte>(checked((int)(rowBytes * rows)));
        Parallel.For(0, rows, row =>
        {
            int from = row;
            if (heads > 0)
            {
                int head = row / (2 * half), within = row % (2 * half);
                from = (2 * half * head) + (within % 2 * half) + (within / 2);
            }
            EncodeRow(new ReadOnlySpan<float>(data + ((long)from * columns), columns), encoded.AsSpan((int)(row * rowBytes), (int)rowBytes), type);
        });
        return encoded;
    }

    private static void EncodeRow(ReadOnlySpan<float> values, Span<byte> target, GgufType type)
    {
        if (type == GgufType.F32)
        {
            MemoryMarshal.AsBytes(values).CopyTo(target);
            return;
        }
        if (type == GgufType.F16)
        {
            Span<Half> halves = MemoryMarshal.Cast<byte, Half>(target);
            for (int i = 0; i < values.Length; i++) halves[i] = (Half)values[i];
            return;
        }
        int bytes = (int)Bytes(type, Block);
        for (int block = 0; block < values.Length / Block; block++)
        {
            ReadOnlySpan<float> source = values.Slice(block * Block, Block);
            Span<byte> to = target.Slice(block * bytes, bytes);
            if (type == GgufType.Q8_0) EncodeBytes(source, to);
            else EncodeNibbles(source, to);
        }
    }

    private static void EncodeBytes(ReadOnlySpan<float> source, Span<byte> target)
    {
        float scale = Largest(source, out _) / 127, inverse = scale != 0 ? 1 / scale : 0;
        BinaryPrimitives.WriteHalfLittleEndian(target, (Half)scale);
        for (int i = 0; i < Block; i++) target[2 + i] = (byte)(sbyte)MathF.Round(source[i] * inverse);
    }

    /// <summary>The value of largest size becomes -8, so that all sixteen numbers are used; element i shares a byte with element i + 16.</summary>
    private static void EncodeNibbles(ReadOnlySpan<float> source, Span<byte> target)
    {
        Largest(source, out float signed);
        float scale = signed / -8, inverse = scale != 0 ? 1 / scale : 0;
        BinaryPrimitives.WriteHalfLittleEndian(target, (Half)scale);
        for (int i = 0; i < Block / 2; i++)
        {
            int low = Math.Min(15, (int)((source[i] * inverse) + 8.5f)), high = Math.Min(15, (int)((source[i + (Block / 2)] * inverse) + 8.5f));
            target[2 + i] = (byte)(low | (high << 4));
        }
    }

    private static float Largest(ReadOnlySpan<float> values, out float signed)
    {
        signed = 0;
        foreach (float value in values)
        {
            if (MathF.Abs(value) > MathF.Abs(signed)) signed = value;
        }
        return MathF.Abs(signed);
    }
}
