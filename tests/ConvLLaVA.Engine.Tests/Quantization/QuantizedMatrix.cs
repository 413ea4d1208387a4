using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Quantization;

/// <summary>A quantised matrix in memory of its own, made by the reference encoder or by hand.</summary>
internal sealed unsafe class QuantizedMatrix : IDisposable
{
    public QuantizedMatrix(QuantFormat format, int rows, int columns)
    {
        Layout = new QuantLayout(format, rows, columns);
        CodesAt = (nint)NativeMemory.AllocZeroed((nuint)Layout.CodeBytes + 64);
        ScalesAt = (nint)NativeMemory.AllocZeroed((nuint)Layout.ScaleBytes + 64);
        AbsMaxAt = (nint)NativeMemory.AllocZeroed((nuint)((Layout.AbsMaxCount * sizeof(float)) + 64));
    }

    public static TheoryData<QuantFormat> Formats => [.. Enum.GetValues<QuantFormat>()];

    public QuantLayout Layout { get; }

    public nint CodesAt { get; }

    public nint ScalesAt { get; }

    public nint AbsMaxAt { get; }

    public float Offset { get; set; }

    public Span<byte> Codes => new((void*)CodesAt, (int)Layout.CodeBytes);

    public Span<byte> Scales => new((void*)ScalesAt, (int)Layout.ScaleBytes);

    public Span<float> AbsMax => new((void*)AbsMaxAt, (int)Layout.AbsMaxCount);

    public QuantizedTensor Tensor => new(Layout, new QuantizedBytes(CodesAt, ScalesAt, Layout.AbsMaxCount == 0 ? 0 : AbsMaxAt, Offset));

    public WeightTensor Weight => new("test.weight", Tensor, "test.safetensors");

    /// <summary>The matrix in the format, by the slow encoder.</summary>
    public static QuantizedMatrix Encode(QuantFormat format, float[] values, int rows)
    {
        int columns = values.Length / rows;
        var matrix = new QuantizedMatrix(format, rows, columns);
        if (format == QuantFormat.Nf4)
        {
            matrix.Offset = QuantReference.EncodeNf4(values, matrix.Codes, matrix.Scales, matrix.AbsMax);
            return matrix;
        }
        int codes = matrix.Layout.RowBytes, scales = matrix.Scales.Length / rows;
        for (int r = 0; r < rows; r++)
            QuantReference.EncodeRow(format, values.AsSpan(r * columns, columns), matrix.Codes.Slice(r * codes, codes), matrix.Scales.Slice(r * scales, scales));
        return matrix;
    }

    /// <summary>The weights that the codes stand for. [rows * columns]</summary>
    public float[] Decode() => Decode(Tensor);

    public static float[] Decode(QuantizedTensor tensor)
    {
        var values = new float[tensor.Layout.Rows * tensor.Layout.Columns];
        for (int r = 0; r < tensor.Layout.Rows; r++) QuantReference.DecodeRow(tensor, r, values.AsSpan(r * tensor.Layout.Columns, tensor.Layout.Columns));
        return values;
    }

    /// <summary>Numbers as weights are: normal, with here and there a large one.</summary>
    public static float[] Normal(Random random, int count, double scale = 0.05)
    {
        var values = new float[count];
        for (int i = 0; i < count; i++)
        {
            double normal = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());
            values[i] = (float)(normal * scale * (random.Next(50) == 0 ? 5 : 1));
        }
        return values;
    }

    public void Dispose()
    {
        NativeMemory.Free((void*)CodesAt);
        NativeMemory.Free((void*)ScalesAt);
        NativeMemory.Free((void*)AbsMaxAt);
    }
}
