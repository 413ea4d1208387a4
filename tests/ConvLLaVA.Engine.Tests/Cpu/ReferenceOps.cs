namespace ConvLLaVA.Engine.Tests.Cpu;

/// <summary>Every operation the slow and obvious way, in double. Matrices are row-major arrays.</summary>
internal static class ReferenceOps
{
    public static double[] Wide(float[] values) => Array.ConvertAll(values, v => (double)v);

    /// <summary>Error function to double precision: its series near zero, the continued fraction of erfc beyond.</summary>
    public static double Erf(double x)
    {
        double a = Math.Abs(x);
        if (a < 2.5)
        {
            double term = a, sum = a;
            for (int n = 1; n < 200 && Math.Abs(term) > 1e-18; n++)
            {
                term *= -a * a / n;
                sum += term / (2 * n + 1);
            }
            return Math.Sign(x) * sum * 2 / Math.Sqrt(Math.PI);
        }
        return Math.Sign(x) * (1 - Erfc(a));
    }

    /// <summary>1 - Erf for x >= 2.5 without cancellation.</summary>
    private static double Erfc(double x)
    {
        double fraction = 0;
        for (int n = 200; n >= 1; n--) fraction = n / 2.0 / (x + fraction);
        return Math.Exp(-x * x) / Math.Sqrt(Math.PI) / (x + fraction);
    }

    public static double Gelu(double x)
    {
        double z = x / Math.Sqrt(2);
        return z < -2.5 ? 0.5 * x * Erfc(-z) : 0.5 * x * (1 + Erf(z));
    }

    public static double Silu(double x) => x / (1 + Math.Exp(-x));

    /// <summary>scale * (x w^T + bias). x [m, k], w [n, k], result [m, n].</summary>
    public static double[] Linear(double[] x, int m, float[] w, int n, float[]? bias = null, float[]? scale = null)
    {
        int k = x.Length / m;
        var y = new double[m * n];
        for (int i = 0; i < m; i++)
        {
            for (int j = 0; j < n; j++)
            {
                double sum = bias is null ? 0 : bias[j];
                for (int p = 0; p < k; p++) sum += x[i * k + p] * w[j * k + p];
                y[i * n + j] = scale is null ? sum : sum * scale[j];
            }
        }
        return y;
    }

    public static double[] LayerNorm(double[] x, int rows, float[] weight, float[] bias, double epsilon)
    {
        int c = x.Length / rows;
        var y = new double[x.Length];
        for (int r = 0; r < rows; r++)
        {
            double mean = 0, variance = 0;
            for (int i = 0; i < c; i++) mean += x[r * c + i] / c;
            for (int i = 0; i < c; i++) variance += (x[r * c + i] - mean) * (x[r * c + i] - mean) / c;
            for (int i = 0; i < c; i++) y[r * c + i] = (x[r * c + i] - mean) / Math.Sqrt(variance + epsilon) * weight[i] + bias[i];
        }
        return y;
    }

    public static double[] RmsNorm(double[] x, int rows, float[] weight, double epsilon)
    {
        int c = x.Length / rows;
        var y = new double[x.Length];
        for (int r = 0; r < rows; r++)
        {
            double square = 0;
            for (int i = 0; i < c; i++) square += x[r * c + i] * x[r * c + i] / c;
            for (int i = 0; i < c; i++) y[r * c + i] = x[r * c + i] / Math.Sqrt(square + epsilon) * weight[i];
        }
        return y;
    }

    /// <summary>x [images, h, w, c], filter [c, 1, 7, 7].</summary>
    public static double[] Depthwise(double[] x, int images, int h, int w, int c, float[] filter, float[] bias)
    {
        var y = new double[x.Length];
        for (int n = 0; n < images; n++)
            for (int oy = 0; oy < h; oy++)
                for (int ox = 0; ox < w; ox++)
                    for (int ch = 0; ch < c; ch++)
                    {
                        double sum = bias[ch];
                        for (int ky = 0; ky < 7; ky++)
                            for (int kx = 0; kx < 7; kx++)
                            {
                                int iy = oy + ky - 3, ix = ox + kx - 3;
                                if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue;
                                sum += x[((n * h + iy) * w + ix) * c + ch] * filter[ch * 49 + ky * 7 + kx];
                            }
                        y[((n * h + oy) * w + ox) * c + ch] = sum;
                    }
        return y;
    }

    /// <summary>Convolution with stride k and no padding of a channels-last map. x [images, h, w, c], filter [out, c, k, k].</summary>
    public static double[] PatchConvolution(double[] x, int images, int h, int w, int c, float[] filter, float[] bias, int k)
    {
        int oh = h / k, ow = w / k, outs = bias.Length;
        var y = new double[images * oh * ow * outs];
        for (int n = 0; n < images; n++)
            for (int oy = 0; oy < oh; oy++)
                for (int ox = 0; ox < ow; ox++)
                    for (int o = 0; o < outs; o++)
                    {
                        double sum = bias[o];
                        for (int ch = 0; ch < c; ch++)
                            for (int ky = 0; ky < k; ky++)
                                for (int kx = 0; kx < k; kx++)
                                    sum += x[((n * h + oy * k + ky) * w + ox * k + kx) * c + ch] * filter[((o * c + ch) * k + ky) * k + kx];
                        y[((n * oh + oy) * ow + ox) * outs + o] = sum;
                    }
        return y;
    }

    /// <summary>Rotates every head of one row. row [heads * headDim].</summary>
    public static void Rope(double[] row, int headDim, int position, double theta, double factor = 1)
    {
        int half = headDim / 2;
        for (int start = 0; start < row.Length; start += headDim)
        {
            for (int i = 0; i < half; i++)
            {
                float frequency = 1f / (float)Math.Pow(theta, 2 * i / (float)headDim);
                double angle = (float)(position / factor) * frequency;
                double a = row[start + i], b = row[start + half + i];
                row[start + i] = a * Math.Cos(angle) - b * Math.Sin(angle);
                row[start + half + i] = b * Math.Cos(angle) + a * Math.Sin(angle);
            }
        }
    }

    /// <summary>Attention of one query at the end of its context. query [heads * d], keys and values [context][kvHeads * d].</summary>
    public static double[] Attention(double[] query, IReadOnlyList<double[]> keys, IReadOnlyList<double[]> values, int heads, int kvHeads, int context)
    {
        int d = query.Length / heads;
        var y = new double[query.Length];
        for (int h = 0; h < heads; h++)
        {
            int kv = h / (heads / kvHeads);
            var scores = new double[context];
            for (int t = 0; t < context; t++)
            {
                for (int i = 0; i < d; i++) scores[t] += query[h * d + i] * keys[t][kv * d + i] / Math.Sqrt(d);
            }
            double max = scores.Max(), total = 0;
            for (int t = 0; t < context; t++) total += scores[t] = Math.Exp(scores[t] - max);
            for (int t = 0; t < context; t++)
            {
                for (int i = 0; i < d; i++) y[h * d + i] += scores[t] / total * values[t][kv * d + i];
            }
        }
        return y;
    }
}
