using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Activations as the quantised kernels read them, in one piece of memory. A token's activations are quantised on their own, in
/// groups of 32 with the scale absmax / 127: which other tokens there are changes nothing.</summary>
internal readonly unsafe struct QuantInput
{
    /// <summary>From this size on the original's 8-bit mode leaves an activation in floats.</summary>
    public const float Outlier = 6f;

    private const int Group = CpuQuantLinear.Group;
    private readonly QuantFormat _format;

    /// <summary>Lays the parts out from <paramref name="memory"/> on.</summary>
    /// <param name="memory">At least <see cref="ByteCount"/> bytes, aligned to a cache line.</param>
    /// <param name="weight">The weights that they will be multiplied with.</param>
    /// <param name="rows">Tokens.</param>
    /// <param name="source">[rows, sourceStride] floats.</param>
    /// <param name="sourceStride">Floats from one row to the next.</param>
    public QuantInput(nint memory, CpuQuantLinear weight, int rows, nint source, int sourceStride)
    {
        _format = weight.Format;
        Columns = weight.InFeatures;
        Rows = rows;
        Source = (float*)source;
        SourceStride = sourceStride;
        Stride = weight.PaddedColumns;
        Groups = weight.PaddedColumns / Group;
        Codes = (byte*)memory;
        Scales = (float*)(Codes + ((long)rows * Stride * CodeSize(weight.Kind)));
        Sums = (int*)(Scales + ((long)rows * Groups));
        Outliers = Sums + ((long)rows * Groups);
        Copies = weight.Kind is QuantKind.Float8 or QuantKind.Nf4 && Stride != Columns;
    }

    /// <summary>Tokens.</summary>
    public int Rows { get; }

    /// <summary>Columns without padding.</summary>
    public int Columns { get; }

    /// <summary>The activations themselves. [rows, SourceStride]</summary>
    public float* Source { get; }

    /// <summary>Floats from one row to the next.</summary>
    public nint SourceStride { get; }

    /// <summary>Elements from one row of codes to the next, zeros behind the columns.</summary>
    public nint Stride { get; }

    /// <summary>Groups of a row.</summary>
    public int Groups { get; }

    /// <summary>int16 or, for 4-bit weights, int8; for float weights a padded copy when one is needed. [rows, Stride]</summary>
    public byte* Codes { get; }

    /// <summary>[rows, groups]</summary>
    public float* Scales { get; }

    /// <summary>Eight times the sum of a group's codes, for 4-bit weights: their codes are read 8 too high. [rows, groups]</summary>
    public int* Sums { get; }

    /// <summary>For the 8-bit mode of the original: how many columns are outliers and which. [rows, 1 + columns]</summary>
    public int* Outliers { get; }

    /// <summary>Whether float activations are copied.</summary>
    public bool Copies { get; }

    /// <summary>Whether there is anything to prepare.</summary>
    public bool NeedsPreparing => Copies || _format is not (QuantFormat.Fp8 or QuantFormat.Nf4);

    /// <summary>Bytes that so many rows take.</summary>
    public static long ByteCount(CpuQuantLinear weight, int rows)
    {
        long padded = weight.PaddedColumns, row = padded * CodeSize(weight.Kind);
        if (weight.Kind is QuantKind.Float8 or QuantKind.Nf4) return padded == weight.InFeatures ? 0 : rows * row;
        row += padded / Group * (sizeof(float) + sizeof(int));
        if (weight.Format == QuantFormat.Int8) row += sizeof(int) * (1L + weight.InFeatures);
        return rows * row;
    }

    /// <summary>Prepares one row.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Prepare(int row)
    {
        float* from = Source + (row * SourceStride);
        if (Copies)
        {
            float* to = (float*)Codes + (row * Stride);
            for (int i = 0; i < Stride; i++) to[i] = i < Columns ? from[i] : 0;
            return;
        }
        if (_format == QuantFormat.Int8)
        {
            PrepareRow(row, from);
            return;
        }
        float* padded = stackalloc float[Group];
        for (int g = 0; g < Groups; g++)
        {
            float* group = from + (g * Group);
            int left = Columns - (g * Group);
            if (left < Group)
            {
                for (int i = 0; i < Group; i++) padded[i] = i < left ? group[i] : 0;
                group = padded;
            }
            QuantizeGroup(row, g, group, AbsMax(group));
        }
    }

    // One scale for the whole row, taken without its outliers, whose codes are zero. The original takes a column out for all tokens of a
    // batch when one of them is large there; here each token stands for itself.
    private void PrepareRow(int row, float* from)
    {
        int* outliers = Outliers + (row * (1L + Columns));
        int count = 0;
        float largest = 0;
        for (int i = 0; i < Columns; i++)
        {
            float magnitude = MathF.Abs(from[i]);
            if (magnitude >= Outlier) outliers[1 + count++] = i;
            else largest = MathF.Max(largest, magnitude); // NaN stays
        }
        outliers[0] = count;
        float* kept = stackalloc float[Group];
        for (int g = 0; g < Groups; g++)
        {
            for (int i = 0; i < Group; i++)
            {
                int column = (g * Group) + i;
                float value = column < Columns ? from[column] : 0;
                kept[i] = MathF.Abs(value) >= Outlier ? 0 : value;
            }
            QuantizeGroup(row, g, kept, largest);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static float AbsMax(float* group)
    {
        Vector256<float> most = Vector256.Max(
            Vector256.Max(Vector256.Abs(Vector256.Load(group)), Vector256.Abs(Vector256.Load(group + 8))),
            Vector256.Max(Vector256.Abs(Vector256.Load(group + 16)), Vector256.Abs(Vector256.Load(group + 24))));
        Vector128<float> four = Vector128.Max(most.GetLower(), most.GetUpper());
        Vector128<float> two = Vector128.Max(four, Vector128.Shuffle(four, Vector128.Create(2, 3, 0, 1)));
        return MathF.Max(two.GetElement(0), two.GetElement(1));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void QuantizeGroup(int row, int g, float* group, float largest)
    {
        long at = ((long)row * Groups) + g;
        Scales[at] = largest / 127;
        // Below this the inverse would be infinite; such activations are as good as zero.
        Vector256<float> inverse = Vector256.Create(largest < 1e-36f ? 0 : 127 / largest);
        Vector256<int> a = Round(group, inverse), b = Round(group + 8, inverse), c = Round(group + 16, inverse), d = Round(group + 24, inverse);
        Vector256<short> low = Vector256.Narrow(a, b), high = Vector256.Narrow(c, d);
        nint first = ((nint)row * Stride) + (g * Group);
        if (CpuQuantLinear.KindOf(_format) == QuantKind.Int8)
        {
            low.Store((short*)Codes + first);
            high.Store((short*)Codes + first + 16);
            return;
        }
        Vector256.Narrow(low, high).Store((sbyte*)Codes + first);
        Sums[at] = 8 * Vector256.Sum(a + b + c + d);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> Round(float* values, Vector256<float> inverse)
        => Vector256.ConvertToInt32(Vector256.Round(Vector256.Load(values) * inverse));

    private static int CodeSize(QuantKind kind) => kind switch { QuantKind.Int8 => sizeof(short), QuantKind.Int4 => sizeof(sbyte), _ => sizeof(float) };
}
