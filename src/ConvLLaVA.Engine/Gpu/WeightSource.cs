using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Where a weight of the device comes from: produces its bytes piece by piece, straight from the memory map.</summary>
/// <param name="type">Type on the device.</param>
/// <param name="elements">Number of elements.</param>
/// <param name="row">Elements that are produced together; a piece is whole rows.</param>
internal abstract class WeightSource(DType type, long elements, int row)
{
    /// <summary>Type on the device.</summary>
    public DType Type { get; } = type;

    /// <summary>Number of elements.</summary>
    public long Elements { get; } = elements;

    /// <summary>Elements that are produced together.</summary>
    public int Row { get; } = row;

    /// <summary>Bytes on the device.</summary>
    public long ByteLength => Elements * Type.SizeInBytes();

    /// <summary>Produces elements from <paramref name="start"/> on, a multiple of <see cref="Row"/>, until <paramref name="destination"/> is full.</summary>
    public abstract void Fill(long start, Span<byte> destination);

    /// <summary>Lets go of what was only needed to produce them.</summary>
    public virtual void Release() { }

    /// <summary>Refuses a tensor that is not what the model needs.</summary>
    /// <exception cref="InvalidInputException">It is not.</exception>
    public static void Require(WeightTensor tensor, bool condition, string expected)
    {
        if (!condition) throw new InvalidInputException($"{tensor.Source}: {tensor} was found where {expected} was expected.");
    }
}

/// <summary>Tensors one after the other, converted and otherwise as they lie.</summary>
internal sealed class PlainSource(IReadOnlyList<WeightTensor> parts, DType type) : WeightSource(type, parts.Sum(part => part.ElementCount), 1)
{
    /// <inheritdoc/>
    public override void Fill(long start, Span<byte> destination)
    {
        int size = Type.SizeInBytes();
        foreach (WeightTensor part in parts)
        {
            if (start >= part.ElementCount)
            {
                start -= part.ElementCount;
                continue;
            }
            int count = (int)Math.Min(part.ElementCount - start, destination.Length / size);
            TensorConversion.Convert(part, start, destination[..(count * size)], Type);
            destination = destination[(count * size)..];
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

/// <summary>A convolution <c>[out, in, k, k]</c> as rows <c>[out, k * k * in]</c> in (ky, kx, channel) order.</summary>
internal sealed class PatchSource(WeightTensor weight, DType type)
    : WeightSource(type, weight.ElementCount, checked((int)(weight.ElementCount / weight.Shape[0])))
{
    private readonly int _channels = checked((int)weight.Shape[1]);
    private readonly float[] _stored = new float[weight.ElementCount / weight.Shape[0]];
    private readonly float[] _ordered = new float[weight.ElementCount / weight.Shape[0]];

    /// <inheritdoc/>
    public override void Release() => weight.Release();

    /// <inheritdoc/>
    public override void Fill(long start, Span<byte> destination)
    {
        int bytes = Row * Type.SizeInBytes(), cells = Row / _channels;
        for (; !destination.IsEmpty; destination = destination[bytes..], start += Row)
        {
            TensorConversion.ToFloat32(weight, start, _stored);
            for (int cell = 0; cell < cells; cell++)
            {
                for (int c = 0; c < _channels; c++) _ordered[(cell * _channels) + c] = _stored[(c * cells) + cell];
            }
            TensorConversion.Convert(MemoryMarshal.AsBytes<float>(_ordered), DType.Float32, destination[..bytes], Type);
        }
    }
}

/// <summary>A depthwise filter <c>[C, 1, 7, 7]</c> as <c>[49, C]</c>.</summary>
internal sealed class DepthwiseSource(WeightTensor filter, DType type) : WeightSource(type, filter.ElementCount, checked((int)filter.Shape[0]))
{
    private readonly float[] _stored = new float[filter.ElementCount];
    private readonly float[] _ordered = new float[filter.Shape[0]];
    private bool _read;

    /// <inheritdoc/>
    public override void Release() => filter.Release();

    /// <inheritdoc/>
    public override void Fill(long start, Span<byte> destination)
    {
        if (!_read) TensorConversion.ToFloat32(filter, 0, _stored);
        _read = true;
        int channels = Row, taps = checked((int)(Elements / Row)), bytes = Row * Type.SizeInBytes();
        for (int tap = (int)(start / Row); !destination.IsEmpty; destination = destination[bytes..], tap++)
        {
            for (int c = 0; c < channels; c++) _ordered[c] = _stored[((long)c * taps) + tap];
            TensorConversion.Convert(MemoryMarshal.AsBytes<float>(_ordered), DType.Float32, destination[..bytes], Type);
        }
    }
}

/// <summary>A matrix <c>[out, in]</c> with a factor for each row multiplied in: rounding happens once, after the product.</summary>
internal sealed class ScaledSource(WeightTensor weight, float[] factors, DType type) : WeightSource(type, weight.ElementCount, checked((int)weight.Shape[1]))
{
    private readonly float[] _row = new float[weight.Shape[1]];

    /// <inheritdoc/>
    public override void Release() => weight.Release();

    /// <inheritdoc/>
    public override void Fill(long start, Span<byte> destination)
    {
        int bytes = Row * Type.SizeInBytes();
        for (; !destination.IsEmpty; destination = destination[bytes..], start += Row)
        {
            TensorConversion.ToFloat32(weight, start, _row);
            float factor = factors[start / Row];
            for (int i = 0; i < _row.Length; i++) _row[i] *= factor;
            TensorConversion.Convert(MemoryMarshal.AsBytes<float>(_row), DType.Float32, destination[..bytes], Type);
        }
    }
}

/// <summary>Values that were computed on the host.</summary>
internal sealed class ValueSource(float[] values, DType type) : WeightSource(type, values.Length, 1)
{
    /// <inheritdoc/>
    public override void Fill(long start, Span<byte> destination)
    {
        ReadOnlySpan<float> from = values.AsSpan((int)start, destination.Length / Type.SizeInBytes());
        TensorConversion.Convert(MemoryMarshal.AsBytes(from), DType.Float32, destination, Type);
    }
}
