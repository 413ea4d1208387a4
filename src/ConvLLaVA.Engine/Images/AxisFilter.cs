namespace ConvLLaVA.Engine.Images;

/// <summary>The taps of Pillow's bicubic filter along one axis, for a range of output positions
/// (Pillow <c>Resample.c</c>: <c>precompute_coeffs</c> and <c>normalize_coeffs_8bpc</c>).</summary>
internal sealed class AxisFilter
{
    /// <summary>Fraction bits of a weight (Pillow's <c>PRECISION_BITS</c>: 32 - 8 sample bits - 2 for overshoot).</summary>
    public const int FractionBits = 32 - 8 - 2;

    /// <summary>Half of one unit in <see cref="FractionBits"/>: added before the shift.</summary>
    public const int Rounding = 1 << (FractionBits - 1);

    private AxisFilter(int positions, int taps)
    {
        First = new int[positions];
        Count = new int[positions];
        Taps = taps;
        Weights = new int[checked(positions * taps)];
        Low = new short[Weights.Length];
        High = new short[Weights.Length];
    }

    /// <summary>Taps stored per output position: the longest <see cref="Count"/> rounded up to a multiple of 4; the rest have weight 0.</summary>
    public int Taps { get; }

    /// <summary>First input index per output position.</summary>
    public int[] First { get; }

    /// <summary>Inputs that count per output position; <c>First + Count</c> never passes the input.</summary>
    public int[] Count { get; }

    /// <summary>Weights <c>[positions, Taps]</c> in <see cref="FractionBits"/> fixed point.</summary>
    public int[] Weights { get; }

    /// <summary>Lower 16 bits of each weight, read as signed: <c>weight = High * 65536 + Low</c>.</summary>
    public short[] Low { get; }

    /// <summary>What <see cref="Low"/> leaves of each weight, in units of 65536.</summary>
    public short[] High { get; }

    /// <summary>Computes the taps for output positions <paramref name="start"/> … <paramref name="start"/> + <paramref name="positions"/> - 1.</summary>
    public static AxisFilter Bicubic(int inputSize, int outputSize, int start, int positions)
    {
        // Pillow keeps the source box in float, so the input size passes through float.
        double scale = (double)(float)inputSize / outputSize;
        double filterScale = Math.Max(scale, 1.0);
        double support = 2.0 * filterScale;
        double inverse = 1.0 / filterScale;
        int longest = 0;
        for (int i = 0; i < positions; i++)
        {
            Bounds(start + i, scale, support, inputSize, out int first, out int count);
            longest = Math.Max(longest, count);
        }
        AxisFilter filter = new(positions, (longest + 3) & ~3);
        double[] raw = new double[longest];
        for (int i = 0; i < positions; i++)
        {
            double center = Bounds(start + i, scale, support, inputSize, out int first, out int count);
            filter.First[i] = first;
            filter.Count[i] = count;
            double sum = 0.0;
            for (int k = 0; k < count; k++)
            {
                raw[k] = Kernel((k + first - center + 0.5) * inverse);
                sum += raw[k];
            }
            for (int k = 0; k < count; k++)
            {
                double weight = sum != 0.0 ? raw[k] / sum : raw[k];
                int fixedPoint = (int)(weight * (1 << FractionBits) + (weight < 0 ? -0.5 : 0.5));
                int at = i * filter.Taps + k;
                filter.Weights[at] = fixedPoint;
                filter.Low[at] = unchecked((short)fixedPoint);
                filter.High[at] = (short)((fixedPoint - filter.Low[at]) >> 16);
            }
        }
        return filter;
    }

    private static double Bounds(int position, double scale, double support, int inputSize, out int first, out int count)
    {
        double center = (position + 0.5) * scale;
        first = Math.Max(0, (int)(center - support + 0.5));
        count = Math.Min(inputSize, (int)(center + support + 0.5)) - first;
        return center;
    }

    /// <summary>The cubic convolution kernel with a = -0.5, in the order of operations of Pillow's <c>bicubic_filter</c>.</summary>
    private static double Kernel(double x)
    {
        const double A = -0.5;
        x = Math.Abs(x);
        if (x < 1.0) return ((A + 2.0) * x - (A + 3.0)) * x * x + 1;
        if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * A;
        return 0.0;
    }
}
