using System.Runtime.CompilerServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>LayerNorm and RMSNorm of one row.</summary>
internal static unsafe class Norms<V, S> where V : struct where S : struct, ISimd<V>
{
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining;

    /// <summary>output = (input - mean) / sqrt(variance + epsilon) * weight + bias. All [count]; output may be input.</summary>
    [MethodImpl(Hot)]
    public static void LayerNorm(float* input, int count, float* weight, float* bias, float epsilon, float* output)
    {
        int whole = count & ~(Simd.Lanes - 1), tail = count - whole;
        // Four sums side by side: one alone would wait for each addition.
        int four = whole & ~(4 * Simd.Lanes - 1);
        V sum = S.Zero, sum1 = S.Zero, sum2 = S.Zero, sum3 = S.Zero;
        for (int i = 0; i < four; i += 4 * Simd.Lanes)
        {
            sum = S.Add(sum, S.Load(input + i));
            sum1 = S.Add(sum1, S.Load(input + i + 16));
            sum2 = S.Add(sum2, S.Load(input + i + 32));
            sum3 = S.Add(sum3, S.Load(input + i + 48));
        }
        for (int i = four; i < whole; i += Simd.Lanes) sum = S.Add(sum, S.Load(input + i));
        sum = S.Add(S.Add(sum, sum1), S.Add(sum2, sum3));
        if (tail != 0) sum = S.Add(sum, Simd.LoadPartial<V, S>(input + whole, tail));
        float firstMean = S.Sum(sum) / count;

        // The second pass also measures what rounding left in the mean, and takes it out of mean and variance.
        V centre = S.Broadcast(firstMean);
        V rest = S.Zero, rest1 = S.Zero, rest2 = S.Zero, rest3 = S.Zero;
        V squares = S.Zero, squares1 = S.Zero, squares2 = S.Zero, squares3 = S.Zero;
        for (int i = 0; i < four; i += 4 * Simd.Lanes)
        {
            V d = S.Subtract(S.Load(input + i), centre), d1 = S.Subtract(S.Load(input + i + 16), centre);
            V d2 = S.Subtract(S.Load(input + i + 32), centre), d3 = S.Subtract(S.Load(input + i + 48), centre);
            rest = S.Add(rest, d);
            rest1 = S.Add(rest1, d1);
            rest2 = S.Add(rest2, d2);
            rest3 = S.Add(rest3, d3);
            squares = S.MultiplyAdd(d, d, squares);
            squares1 = S.MultiplyAdd(d1, d1, squares1);
            squares2 = S.MultiplyAdd(d2, d2, squares2);
            squares3 = S.MultiplyAdd(d3, d3, squares3);
        }
        for (int i = four; i < whole; i += Simd.Lanes)
        {
            V d = S.Subtract(S.Load(input + i), centre);
            rest = S.Add(rest, d);
            squares = S.MultiplyAdd(d, d, squares);
        }
        rest = S.Add(S.Add(rest, rest1), S.Add(rest2, rest3));
        squares = S.Add(S.Add(squares, squares1), S.Add(squares2, squares3));
        float restSum = S.Sum(rest), squareSum = S.Sum(squares);
        for (int i = whole; i < count; i++)
        {
            float d = input[i] - firstMean;
            restSum += d;
            squareSum = MathF.FusedMultiplyAdd(d, d, squareSum);
        }
        float correction = restSum / count;
        float mean = firstMean + correction;
        float variance = MathF.Max(0f, squareSum / count - correction * correction);
        float reciprocal = 1f / MathF.Sqrt(variance + epsilon);

        centre = S.Broadcast(mean);
        V factor = S.Broadcast(reciprocal);
        for (int i = 0; i < whole; i += Simd.Lanes)
        {
            V n = S.Multiply(S.Subtract(S.Load(input + i), centre), factor);
            S.Store(output + i, S.MultiplyAdd(n, S.Load(weight + i), S.Load(bias + i)));
        }
        for (int i = whole; i < count; i++)
            output[i] = MathF.FusedMultiplyAdd((input[i] - mean) * reciprocal, weight[i], bias[i]);
    }

    /// <summary>output = input / sqrt(mean of squares + epsilon) * weight. All [count]; output may be input.</summary>
    [MethodImpl(Hot)]
    public static void RmsNorm(float* input, int count, float* weight, float epsilon, float* output)
    {
        int whole = count & ~(Simd.Lanes - 1);
        V squares = S.Zero;
        for (int i = 0; i < whole; i += Simd.Lanes)
        {
            V x = S.Load(input + i);
            squares = S.MultiplyAdd(x, x, squares);
        }
        float sum = S.Sum(squares);
        for (int i = whole; i < count; i++) sum = MathF.FusedMultiplyAdd(input[i], input[i], sum);
        float reciprocal = 1f / MathF.Sqrt(sum / count + epsilon);
        V factor = S.Broadcast(reciprocal);
        for (int i = 0; i < whole; i += Simd.Lanes)
            S.Store(output + i, S.Multiply(S.Multiply(S.Load(input + i), factor), S.Load(weight + i)));
        for (int i = whole; i < count; i++) output[i] = input[i] * reciprocal * weight[i];
    }

    /// <summary>gate = silu(gate) * up. Both [count].</summary>
    [MethodImpl(Hot)]
    public static void SiluMultiply(float* gate, float* up, int count)
    {
        int whole = count & ~(Simd.Lanes - 1), tail = count - whole;
        for (int i = 0; i < whole; i += Simd.Lanes)
            S.Store(gate + i, S.Multiply(Elementary<V, S>.Silu(S.Load(gate + i)), S.Load(up + i)));
        if (tail != 0)
        {
            V y = Elementary<V, S>.Silu(Simd.LoadPartial<V, S>(gate + whole, tail));
            Simd.StorePartial<V, S>(gate + whole, S.Multiply(y, Simd.LoadPartial<V, S>(up + whole, tail)), tail);
        }
    }
}
