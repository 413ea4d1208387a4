using System.Runtime.Intrinsics;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>The operations the slow and obvious way, in double, one output row or element at a time, so that large shapes can be checked by
/// samples that touch every row.</summary>
internal static class SelftestReference
{
    /// <summary>Elements of a weight or input as floats, exactly as stored.</summary>
    public static float[] Row(WeightTensor tensor, long row)
    {
        long columns = tensor.ElementCount / tensor.Shape[0];
        var values = new float[columns];
        TensorConversion.ToFloat32(tensor, row * columns, values);
        return values;
    }

    /// <summary>The whole tensor.</summary>
    public static float[] All(WeightTensor tensor) => TensorConversion.ToFloat32(tensor);

    /// <summary>The scalar product in double.</summary>
    public static double Dot(ReadOnlySpan<float> a, ReadOnlySpan<float> b)
    {
        Vector512<double> even = default, odd = default;
        int i = 0;
        for (; i <= a.Length - 16; i += 16)
        {
            (Vector512<double> aLow, Vector512<double> aHigh) = Vector512.Widen(Vector512.Create(a[i..]));
            (Vector512<double> bLow, Vector512<double> bHigh) = Vector512.Widen(Vector512.Create(b[i..]));
            even += aLow * bLow;
            odd += aHigh * bHigh;
        }
        double sum = Vector512.Sum(even + odd);
        for (; i < a.Length; i++) sum += (double)a[i] * b[i];
        return sum;
    }

    /// <summary>LayerNorm of a row.</summary>
    public static float[] LayerNorm(ReadOnlySpan<double> row, float[] weight, float[] bias, double epsilon)
    {
        double mean = 0, variance = 0;
        foreach (double value in row) mean += value / row.Length;
        foreach (double value in row) variance += (value - mean) * (value - mean) / row.Length;
        double factor = 1 / Math.Sqrt(variance + epsilon);
        var result = new float[row.Length];
        for (int i = 0; i < result.Length; i++) result[i] = (float)(((row[i] - mean) * factor * weight[i]) + bias[i]);
        return result;
    }

    /// <summary>RMSNorm of a row.</summary>
    public static float[] RmsNorm(ReadOnlySpan<float> row, float[] weight, double epsilon)
    {
        double factor = 1 / Math.Sqrt((Dot(row, row) / row.Length) + epsilon);
        var result = new float[row.Length];
        for (int i = 0; i < result.Length; i++) result[i] = (float)(row[i] * factor * weight[i]);
        return result;
    }

    /// <summary>Row (y, x) of image <paramref name="image"/> of a 7x7 depthwise convolution, zero padding 3. maps <c>[images * h * w, C]</c>.</summary>
    public static double[] Depthwise(WeightTensor maps, Grid grid, int image, int y, int x, float[] filter, float[] bias)
    {
        int channels = bias.Length;
        double[] sums = Array.ConvertAll(bias, value => (double)value);
        for (int ky = 0; ky < 7; ky++)
        {
            for (int kx = 0; kx < 7; kx++)
            {
                int iy = y + ky - 3, ix = x + kx - 3;
                if (iy < 0 || iy >= grid.Height || ix < 0 || ix >= grid.Width) continue;
                float[] pixel = Row(maps, ((((long)image * grid.Height) + iy) * grid.Width) + ix);
                for (int c = 0; c < channels; c++) sums[c] += (double)pixel[c] * filter[(c * 49) + (ky * 7) + kx];
            }
        }
        return sums;
    }

    /// <summary>Rotates every head of a row in place.</summary>
    public static void Rope(Span<float> row, RopeParameters rope, int position)
    {
        int half = rope.HeadDim / 2;
        float[] frequencies = RopeAngles.InverseFrequencies(rope);
        for (int head = 0; head < row.Length; head += rope.HeadDim)
        {
            for (int i = 0; i < half; i++)
            {
                (double sine, double cosine) = Math.SinCos(position * frequencies[i]);
                double first = row[head + i], second = row[head + half + i];
                row[head + i] = (float)((first * cosine) - (second * sine));
                row[head + half + i] = (float)((second * cosine) + (first * sine));
            }
        }
    }

    /// <summary>Attention of one head's query over the first <paramref name="context"/> keys and values of one head.</summary>
    public static double[] Attention(ReadOnlySpan<float> query, Func<int, float[]> key, Func<int, float[]> value, int context)
    {
        var scores = new double[context];
        double scale = 1 / Math.Sqrt(query.Length), highest = double.NegativeInfinity, total = 0;
        for (int t = 0; t < context; t++) highest = Math.Max(highest, scores[t] = Dot(query, key(t)) * scale);
        for (int t = 0; t < context; t++) total += scores[t] = Math.Exp(scores[t] - highest);
        var result = new double[query.Length];
        for (int t = 0; t < context; t++)
        {
            float[] row = value(t);
            for (int i = 0; i < result.Length; i++) result[i] += scores[t] / total * row[i];
        }
        return result;
    }

    /// <summary>The token that Hugging Face's processors leave and a uniform number draws, all in double.</summary>
    public static int Choose(ReadOnlySpan<float> logits, SamplingBatch sampling, int row)
    {
        double[] scores = new double[logits.Length];
        for (int id = 0; id < scores.Length; id++) scores[id] = logits[id];
        for (int i = 0; i < sampling.Counted[row]; i++)
        {
            int at = (row * sampling.MaxCounted) + i;
            ref double score = ref scores[sampling.CountedIds[at]];
            score = (score > 0 ? score / sampling.RepetitionPenalties[row] : score * sampling.RepetitionPenalties[row])
                - sampling.PresencePenalties[row] - (sampling.FrequencyPenalties[row] * (double)sampling.Counts[at]);
        }
        double highest = scores.Max(), temperature = sampling.Temperatures[row];
        if (temperature == 0) return Array.IndexOf(scores, highest);

        int topK = sampling.TopK[row];
        double least = topK > 0 && topK < scores.Length ? scores.OrderDescending().ElementAt(topK - 1) : double.NegativeInfinity;
        double[] weights = Array.ConvertAll(scores, score => score < least ? 0 : Math.Exp((score - highest) / temperature));
        double all = weights.Sum(), passed = 0;
        int[] order = [.. Enumerable.Range(0, weights.Length)];
        if (sampling.TopP[row] < 1 || sampling.MinP[row] > 0)
        {
            order = [.. order.OrderBy(id => weights[id]).ThenByDescending(id => id)];
            foreach (int id in order[..^1])
            {
                passed += weights[id];
                if (passed <= (1 - sampling.TopP[row]) * all || weights[id] < sampling.MinP[row]) weights[id] = 0;
            }
        }
        double target = Cpu.Sampler.Uniform(sampling.Seeds[row], sampling.Draws[row]) * weights.Sum();
        passed = 0;
        return order.First(id => (passed += weights[id]) > target);
    }

    /// <summary>Exact GELU.</summary>
    public static double Gelu(double x) => 0.5 * x * Erfc(-x / Math.Sqrt(2));

    /// <summary>x * sigmoid(x).</summary>
    public static double Silu(double x) => x / (1 + Math.Exp(-x));

    /// <summary>1 - erf(x) without cancellation: the series of erf near zero, the continued fraction of erfc beyond.</summary>
    private static double Erfc(double x)
    {
        double size = Math.Abs(x), complement;
        if (size < 2.5)
        {
            double term = size, sum = size;
            for (int n = 1; Math.Abs(term) > 1e-18; n++)
            {
                term *= -size * size / n;
                sum += term / ((2 * n) + 1);
            }
            complement = 1 - (sum * 2 / Math.Sqrt(Math.PI));
        }
        else
        {
            double fraction = 0;
            for (int n = 120; n >= 1; n--) fraction = n / 2.0 / (size + fraction);
            complement = Math.Exp(-size * size) / Math.Sqrt(Math.PI) / (size + fraction);
        }
        return x >= 0 ? complement : 2 - complement;
    }
}
