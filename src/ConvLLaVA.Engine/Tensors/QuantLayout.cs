using System.Collections.Immutable;

namespace ConvLLaVA.Engine.Tensors;

/// <summary>The parts that a quantised matrix <c>[out, in]</c> consists of and their shapes, the same in files and in memory.</summary>
/// <param name="Format">Format.</param>
/// <param name="Rows">Outputs.</param>
/// <param name="Columns">Inputs.</param>
public readonly record struct QuantLayout(QuantFormat Format, int Rows, int Columns)
{
    /// <summary>Scales of nf4 that share a second-level scale.</summary>
    public const int ScalesPerAbsMax = 256;

    /// <summary>True when a matrix of so many columns can be stored in the format: two weights of one row share a byte.</summary>
    public static bool Fits(QuantFormat format, long columns) => !format.IsFourBit() || columns % 2 == 0;

    /// <summary>Bytes of one row's codes.</summary>
    public int RowBytes => Format.IsFourBit() ? Columns / 2 : Columns;

    /// <summary>Bytes of all codes.</summary>
    public long CodeBytes => (long)Rows * RowBytes;

    /// <summary>Shape of the codes.</summary>
    public ImmutableArray<long> CodeShape => [Rows, RowBytes];

    /// <summary>Type of the codes in a file: signed where they are integers around zero.</summary>
    public DType CodeType => Format is QuantFormat.Q8 or QuantFormat.Q8Row or QuantFormat.Int8 ? DType.Int8 : DType.UInt8;

    /// <summary>Scales of one row; 1 when the row has one. Blocks of nf4 may run across rows: see <see cref="BlocksCrossRows"/>.</summary>
    public int ScalesPerRow => Format.GroupSize() is > 0 and int group ? (Columns + group - 1) / group : 1;

    /// <summary>Whether blocks of nf4, which run along the flattened matrix, begin in one row and end in another.</summary>
    public bool BlocksCrossRows => Format == QuantFormat.Nf4 && Columns % 64 != 0;

    /// <summary>Number of scales.</summary>
    public long ScaleCount => BlocksCrossRows ? (((long)Rows * Columns) + 63) / 64 : (long)Rows * ScalesPerRow;

    /// <summary>Type of the scales: float16 for groups, float32 for rows, 8-bit codes for nf4.</summary>
    public DType ScaleType => Format switch
    {
        QuantFormat.Nf4 => DType.UInt8,
        QuantFormat.Q8 or QuantFormat.Q4 or QuantFormat.Q4Group128 => DType.Float16,
        _ => DType.Float32,
    };

    /// <summary>Shape of the scales: <c>[out, groups]</c>, <c>[out]</c>, or <c>[blocks]</c> for nf4.</summary>
    public ImmutableArray<long> ScaleShape => Format == QuantFormat.Nf4 || Format.GroupSize() == 0 ? [ScaleCount] : [Rows, ScalesPerRow];

    /// <summary>Bytes of the scales.</summary>
    public long ScaleBytes => ScaleCount * ScaleType.SizeInBytes();

    /// <summary>Second-level scales (float32) of nf4, else 0.</summary>
    public long AbsMaxCount => Format == QuantFormat.Nf4 ? (ScaleCount + ScalesPerAbsMax - 1) / ScalesPerAbsMax : 0;

    /// <summary>Bytes of all parts; nf4's offset is one more float32.</summary>
    public long ByteLength => CodeBytes + ScaleBytes + (AbsMaxCount * sizeof(float)) + (Format == QuantFormat.Nf4 ? sizeof(float) : 0);
}
