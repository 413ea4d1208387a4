namespace ConvLLaVA.Engine.Tensors;

/// <summary>How the weights of a matrix are stored in fewer bits. docs/quantization.md has the details of each.</summary>
public enum QuantFormat
{
    /// <summary>8-bit integers, a float16 scale for every 32 inputs.</summary>
    Q8,

    /// <summary>8-bit integers, a float32 scale for every output.</summary>
    Q8Row,

    /// <summary>4-bit integers, a float16 scale for every 32 inputs.</summary>
    Q4,

    /// <summary>4-bit integers, a float16 scale for every 128 inputs.</summary>
    Q4Group128,

    /// <summary>8-bit floats (e4m3), a float32 scale for every output.</summary>
    Fp8,

    /// <summary>4-bit codes of the normal distribution's quantiles in blocks of 64, their scales in 8 bits: the original's 4-bit mode.</summary>
    Nf4,

    /// <summary>8-bit integers with a scale for every output, large activations apart: the original's 8-bit mode.</summary>
    Int8,
}

/// <summary>Facts about each <see cref="QuantFormat"/>.</summary>
public static class QuantFormats
{
    private static readonly string[] Names = ["q8", "q8-row", "q4", "q4-128", "fp8", "nf4", "int8"];

    /// <summary>All names, for messages.</summary>
    public static string AllNames => string.Join(", ", Names);

    /// <summary>Name as people and files write it: <c>q8</c>, <c>q8-row</c>, <c>q4</c>, <c>q4-128</c>, <c>fp8</c>, <c>nf4</c>, <c>int8</c>.</summary>
    public static string Name(this QuantFormat format) => Names[(int)format];

    /// <summary>The format of that name, or null.</summary>
    public static QuantFormat? TryParse(string? name)
    {
        int index = Array.IndexOf(Names, name);
        return index < 0 ? null : (QuantFormat)index;
    }

    /// <summary>True for formats that keep two weights in a byte.</summary>
    public static bool IsFourBit(this QuantFormat format) => format is QuantFormat.Q4 or QuantFormat.Q4Group128 or QuantFormat.Nf4;

    /// <summary>Weights of a row that share a scale; 0 when the whole row does.</summary>
    public static int GroupSize(this QuantFormat format) => format switch
    {
        QuantFormat.Q8 or QuantFormat.Q4 => 32,
        QuantFormat.Q4Group128 => 128,
        QuantFormat.Nf4 => 64,
        _ => 0,
    };
}
