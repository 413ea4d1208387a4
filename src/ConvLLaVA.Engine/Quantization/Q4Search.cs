namespace ConvLLaVA.Engine.Quantization;

/// <summary>Looks for the scale of a 4-bit group that gives the smallest squared error. Codes are -8..7, so the side of zero with the largest
/// weight should get the eight steps: the scale is negative when that weight is positive. Tried are the largest weight over
/// several divisors, and then the scale that fits the codes of the best one in the sense of least squares, twice.</summary>
internal static class Q4Search
{
    /// <summary>What the largest weight is divided by. Beyond -8 it is cut off a little for the sake of all others.</summary>
    public static ReadOnlySpan<float> Divisors => [-8f, -7.75f, -7.5f, -7.25f, -7f, -8.25f, -8.5f, -8.75f, -9f, -9.5f, 7f, 7.25f, 7.5f, 7.75f];

    /// <summary>Least-squares fits after the search.</summary>
    public const int Fits = 2;

    /// <summary>The scale for a group of at most 128 finite weights.</summary>
    public static Half Scale(ReadOnlySpan<float> group)
    {
        float largest = 0;
        foreach (float weight in group)
        {
            if (MathF.Abs(weight) > MathF.Abs(largest)) largest = weight;
        }
        Half best = (Half)0f;
        float smallest = float.PositiveInfinity;
        foreach (float divisor in Divisors) Try(group, QuantReference.GroupScale(largest / divisor), ref best, ref smallest);
        for (int i = 0; i < Fits; i++) Try(group, Fit(group, (float)best), ref best, ref smallest);
        return best;
    }

    /// <summary>What weights are multiplied by; 0 for the scale 0.</summary>
    public static float Inverse(float scale) => scale == 0 ? 0 : 1 / scale;

    /// <summary>The code of a weight, -8..7.</summary>
    public static int Code(float weight, float inverse) => (int)Math.Clamp(MathF.Round(weight * inverse), -8f, 7f);

    private static void Try(ReadOnlySpan<float> group, Half scale, ref Half best, ref float smallest)
    {
        float error = Error(group, (float)scale);
        if (error >= smallest) return;
        best = scale;
        smallest = error;
    }

    /// <summary>Sum of squared errors, in the order of a 16-lane vector: lane l sums the elements that are l modulo 16.</summary>
    private static float Error(ReadOnlySpan<float> group, float scale)
    {
        Span<float> lanes = stackalloc float[16];
        float inverse = Inverse(scale);
        lanes.Clear();
        for (int i = 0; i < group.Length; i++)
        {
            float difference = group[i] - (Code(group[i], inverse) * scale);
            lanes[i % 16] += difference * difference;
        }
        return SumLanes(lanes);
    }

    private static Half Fit(ReadOnlySpan<float> group, float scale)
    {
        Span<float> products = stackalloc float[16], squares = stackalloc float[16];
        float inverse = Inverse(scale);
        products.Clear();
        squares.Clear();
        for (int i = 0; i < group.Length; i++)
        {
            float code = Code(group[i], inverse);
            products[i % 16] += group[i] * code;
            squares[i % 16] += code * code;
        }
        float norm = SumLanes(squares);
        return norm == 0 ? (Half)scale : QuantReference.GroupScale(SumLanes(products) / norm);
    }

    /// <summary>l with l + 8, then with l + 4, and so on. <paramref name="lanes"/> is overwritten.</summary>
    private static float SumLanes(Span<float> lanes)
    {
        for (int half = 8; half > 0; half /= 2)
        {
            for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
        }
        return lanes[0];
    }
}
