using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>How the CPU multiplies with a format.</summary>
internal enum QuantKind
{
    /// <summary>8-bit integers against 16-bit activations.</summary>
    Int8,

    /// <summary>4-bit integers against 8-bit activations.</summary>
    Int4,

    /// <summary>8-bit floats, widened in registers.</summary>
    Float8,

    /// <summary>4-bit codes, looked up in registers.</summary>
    Nf4,
}

/// <summary>A quantised matrix as the CPU reads it: sixteen rows lie between each other so that one row is one lane of a vector and one
/// activation serves them all. Rows are filled up to a multiple of sixteen and columns to <see cref="PaddedColumns"/> with
/// codes of zero.</summary>
internal sealed class CpuQuantLinear(QuantLayout layout, nint codes, nint groupScales, nint rowScales, nint bias)
    : LinearWeight(layout.Columns, layout.Rows)
{
    /// <summary>Rows that lie between each other: the lanes of a vector.</summary>
    public const int BlockRows = Simd.Lanes;

    /// <summary>Activations that share a scale.</summary>
    public const int Group = 32;

    /// <summary>Format.</summary>
    public QuantFormat Format { get; } = layout.Format;

    /// <summary>Kernel.</summary>
    public QuantKind Kind { get; } = KindOf(layout.Format);

    /// <summary>Columns with padding.</summary>
    public int PaddedColumns { get; } = Padded(layout.Format, layout.Columns);

    /// <summary>Codes: 8-bit integers [out / 16, in / 2, 16, 2]; 4-bit integers [out / 16, in / 8, 16, 4], in each byte column k below and
    /// k + 4 above; 8-bit floats [out / 16, in, 16]; nf4 [out / 16, in / 2, 16], the even column below.</summary>
    public nint Codes { get; } = codes;

    /// <summary>Scales of groups, or zero: float16 [out / 16, groups, 16]; nf4 float32 [out / 16, in / 64, 16].</summary>
    public nint GroupScales { get; } = groupScales;

    /// <summary>Scales of rows, a layer scale multiplied in, or zero. [out] float32, filled up.</summary>
    public nint RowScales { get; } = rowScales;

    /// <summary>Bias, a layer scale multiplied in, or zero. [out]</summary>
    public nint Bias { get; } = bias;

    /// <summary>Groups of activations that share a group of weights, as a power of two.</summary>
    public int ScaleShift { get; } = layout.Format == QuantFormat.Q4Group128 ? 2 : 0;

    /// <summary>Groups of weights in a row.</summary>
    public int ScalesPerRow { get; } = layout.ScalesPerRow;

    /// <summary>Blocks of sixteen rows.</summary>
    public int Blocks => (OutFeatures + BlockRows - 1) / BlockRows;

    /// <summary>Bytes of one block's codes.</summary>
    public long BlockBytes => (long)PaddedColumns * BlockRows / (Kind is QuantKind.Int4 or QuantKind.Nf4 ? 2 : 1);

    /// <summary>Bytes that one pass over the matrix reads.</summary>
    public long ByteLength => (Blocks * BlockBytes)
        + (GroupScales == 0 ? 0 : (long)Blocks * ScalesPerRow * BlockRows * (Kind == QuantKind.Nf4 ? sizeof(float) : sizeof(ushort)));

    /// <summary>The kernel for a format.</summary>
    public static QuantKind KindOf(QuantFormat format) => format switch
    {
        QuantFormat.Q4 or QuantFormat.Q4Group128 => QuantKind.Int4,
        QuantFormat.Fp8 => QuantKind.Float8,
        QuantFormat.Nf4 => QuantKind.Nf4,
        _ => QuantKind.Int8,
    };

    /// <summary>Columns after padding: whole groups for integers, pairs for floats.</summary>
    public static int Padded(QuantFormat format, int columns)
    {
        int multiple = KindOf(format) is QuantKind.Int8 or QuantKind.Int4 ? Group : 2;
        return checked((columns + multiple - 1) / multiple * multiple);
    }
}
