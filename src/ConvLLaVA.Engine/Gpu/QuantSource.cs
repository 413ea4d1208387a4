using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>The codes of quantised matrices, one below the other. [out, in] or [out, in / 2] bytes</summary>
internal sealed class QuantCodeSource(IReadOnlyList<WeightTensor> parts) : WeightSource(DType.UInt8, parts.Sum(part => part.Quantized!.Layout.CodeBytes), 1)
{
    /// <inheritdoc/>
    public override unsafe void Fill(long start, Span<byte> destination)
    {
        foreach (WeightTensor part in parts)
        {
            long length = part.Quantized!.Layout.CodeBytes;
            if (start >= length)
            {
                start -= length;
                continue;
            }
            int count = (int)Math.Min(length - start, destination.Length);
            new ReadOnlySpan<byte>((byte*)part.Quantized.Bytes.Codes + start, count).CopyTo(destination);
            destination = destination[count..];
            if (destination.IsEmpty) return;
            start = 0;
        }
    }

    /// <inheritdoc/>
    public override void Release()
    {
        foreach (WeightTensor part in parts) part.Release();
    }
}

/// <summary>Their scales as kernels take them: float16 for groups, float for rows (a 127th of int8's) and for the blocks of nf4.</summary>
internal sealed class QuantScaleSource(IReadOnlyList<WeightTensor> parts) : WeightSource(
    parts[0].Quantized!.Layout.ScaleType == DType.Float16 ? DType.Float16 : DType.Float32, parts.Sum(part => part.Quantized!.Layout.ScaleCount), 1)
{
    /// <inheritdoc/>
    public override unsafe void Fill(long start, Span<byte> destination)
    {
        int size = Type.SizeInBytes();
        foreach (WeightTensor part in parts)
        {
            QuantizedTensor tensor = part.Quantized!;
            if (start >= tensor.Layout.ScaleCount)
            {
                start -= tensor.Layout.ScaleCount;
                continue;
            }
            int count = (int)Math.Min(tensor.Layout.ScaleCount - start, destination.Length / size);
            Span<byte> to = destination[..(count * size)];
            if (tensor.Format == QuantFormat.Nf4) Nf4.ExpandScales(tensor, start, MemoryMarshal.Cast<byte, float>(to));
            else if (tensor.Format == QuantFormat.Int8) Divide(tensor, start, MemoryMarshal.Cast<byte, float>(to));
            else new ReadOnlySpan<byte>((byte*)tensor.Bytes.Scales + (start * size), to.Length).CopyTo(to);
            destination = destination[to.Length..];
            if (destination.IsEmpty) return;
            start = 0;
        }
    }

    private static unsafe void Divide(QuantizedTensor tensor, long start, Span<float> to)
    {
        float* scales = (float*)tensor.Bytes.Scales + start;
        for (int i = 0; i < to.Length; i++) to[i] = scales[i] / 127;
    }
}

/// <summary>Quantised matrices as what their codes stand for.</summary>
internal sealed class DecodedSource(IReadOnlyList<WeightTensor> parts, DType type)
    : WeightSource(type, parts.Sum(part => part.ElementCount), checked((int)parts[0].Shape[1]))
{
    private readonly float[] _row = new float[parts[0].Shape[1]];

    /// <inheritdoc/>
    public override void Fill(long start, Span<byte> destination)
    {
        int bytes = Row * Type.SizeInBytes();
        for (long row = start / Row; !destination.IsEmpty; destination = destination[bytes..], row++)
        {
            int part = 0;
            long within = row;
            while (within >= parts[part].Shape[0]) within -= parts[part++].Shape[0];
            QuantReference.DecodeRow(parts[part].Quantized!, (int)within, _row);
            TensorConversion.Convert(MemoryMarshal.AsBytes<float>(_row), DType.Float32, destination[..bytes], Type);
        }
    }

    /// <inheritdoc/>
    public override void Release()
    {
        foreach (WeightTensor part in parts) part.Release();
    }
}
