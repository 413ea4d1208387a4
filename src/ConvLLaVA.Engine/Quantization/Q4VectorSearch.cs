using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace ConvLLaVA.Engine.Quantization;

/// <summary><see cref="Q4Search"/> sixteen weights at a time, with the same bits: its sums are in the order of these vectors.</summary>
internal static unsafe class Q4VectorSearch
{
    private const int Lanes = 16;

    /// <summary>The scale for a group, behind whose last weight 15 zeros or the next group lie.</summary>
    /// <param name="group">Finite weights. [count]</param>
    /// <param name="count">At most 128.</param>
    /// <param name="codes">Receives the codes as floats, -8..7. [128]</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static Half Scale(float* group, int count, float* codes)
    {
        float largest = 0;
        for (int i = 0; i < count; i++)
        {
            if (MathF.Abs(group[i]) > MathF.Abs(largest)) largest = group[i];
        }
        Half best = (Half)0f;
        float smallest = float.PositiveInfinity;
        foreach (float divisor in Q4Search.Divisors)
        {
            Half scale = QuantReference.GroupScale(largest / divisor);
            float error = Error(group, count, (float)scale);
            if (error >= smallest) continue;
            best = scale;
            smallest = error;
        }
        for (int i = 0; i < Q4Search.Fits; i++)
        {
            Half scale = Fit(group, count, (float)best);
            float error = Error(group, count, (float)scale);
            if (error >= smallest) continue;
            best = scale;
            smallest = error;
        }
        Vector512<float> inverse = Vector512.Create(Q4Search.Inverse((float)best));
        for (int i = 0; i < count; i += Lanes) Code(Vector512.Load(group + i), inverse).Store(codes + i);
        return best;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Code(Vector512<float> weights, Vector512<float> inverse)
        => Vector512.Min(Vector512.Max(Vector512.Round(weights * inverse), Vector512.Create(-8f)), Vector512.Create(7f));

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static float Error(float* group, int count, float scale)
    {
        Vector512<float> inverse = Vector512.Create(Q4Search.Inverse(scale)), step = Vector512.Create(scale), sum = Vector512<float>.Zero;
        for (int i = 0; i < count; i += Lanes)
        {
            Vector512<float> weights = Vector512.Load(group + i), difference = weights - (Code(weights, inverse) * step);
            sum += difference * difference;
        }
        return SumLanes(sum);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static Half Fit(float* group, int count, float scale)
    {
        Vector512<float> inverse = Vector512.Create(Q4Search.Inverse(scale)), products = Vector512<float>.Zero, squares = Vector512<float>.Zero;
        for (int i = 0; i < count; i += Lanes)
        {
            Vector512<float> weights = Vector512.Load(group + i), code = Code(weights, inverse);
            products += weights * code;
            squares += code * code;
        }
        float norm = SumLanes(squares);
        return norm == 0 ? (Half)scale : QuantReference.GroupScale(SumLanes(products) / norm);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static float SumLanes(Vector512<float> sum)
    {
        Vector256<float> eight = sum.GetLower() + sum.GetUpper();
        Vector128<float> four = eight.GetLower() + eight.GetUpper();
        return (four[0] + four[2]) + (four[1] + four[3]);
    }
}
