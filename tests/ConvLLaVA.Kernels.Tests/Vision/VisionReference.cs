namespace ConvLLaVA.Kernels.Tests.Vision;

/// <summary>The vision kernels in double precision, written as their definitions read. Beside each answer: how far fp32 arithmetic may be
/// from it before the one rounding to storage.</summary>
internal static class VisionReference
{
    /// <summary>LayerNorm of one row. <paramref name="inputError"/> bounds the error that each x already has.</summary>
    public static void LayerNorm(ReadOnlySpan<double> x, ReadOnlySpan<float> weight, ReadOnlySpan<float> bias, double epsilon, double inputError, Span<double> y, Span<double> slack)
    {
        double mean = 0, variance = 0, largest = 0;
        foreach (double v in x) mean += v;
        mean /= x.Length;
        foreach (double v in x)
        {
            variance += (v - mean) * (v - mean);
            largest = Math.Max(largest, Math.Abs(v));
        }
        double scale = 1 / Math.Sqrt((variance / x.Length) + epsilon);
        // A sum of n terms over lanes and a butterfly has about n / 32 + 10 roundings one behind the other, in the worst case all one way.
        double sumError = Numbers.Unit * (10 + (x.Length / 32.0));
        double centred = inputError + (largest * (sumError + (4 * Numbers.Unit)));
        for (int i = 0; i < x.Length; i++)
        {
            double normalised = (x[i] - mean) * scale;
            y[i] = (normalised * weight[i]) + bias[i];
            double relative = (2 * sumError) + (8 * Numbers.Unit) + (2 * centred * scale);
            slack[i] = (Math.Abs(weight[i]) * ((centred * scale) + (Math.Abs(normalised) * relative))) + (2 * Numbers.Unit * (Math.Abs(y[i]) + Math.Abs(bias[i])));
        }
    }

    /// <summary>LayerNorm of all rows of x [rows, columns].</summary>
    public static (double[] Y, double[] Slack) LayerNorm(ReadOnlySpan<float> x, int columns, ReadOnlySpan<float> weight, ReadOnlySpan<float> bias, float epsilon)
    {
        var y = new double[x.Length];
        var slack = new double[x.Length];
        var row = new double[columns];
        for (int start = 0; start < x.Length; start += columns)
        {
            for (int c = 0; c < columns; c++) row[c] = x[start + c];
            LayerNorm(row, weight, bias, epsilon, 0, y.AsSpan(start, columns), slack.AsSpan(start, columns));
        }
        return (y, slack);
    }

    /// <summary>Depthwise 7x7 convolution, bias, LayerNorm. x [images, height, width, channels], filter [49, channels].</summary>
    public static (double[] Y, double[] Slack) DepthwiseNorm(DepthwiseCase shape, ReadOnlySpan<float> x, ReadOnlySpan<float> filter, ReadOnlySpan<float> filterBias,
        ReadOnlySpan<float> weight, ReadOnlySpan<float> bias, float epsilon)
    {
        (int images, int height, int width, int channels) = (shape.Images, shape.Height, shape.Width, shape.Channels);
        var y = new double[x.Length];
        var slack = new double[x.Length];
        var sums = new double[channels];
        for (int n = 0; n < images; n++)
        {
            for (int row = 0; row < height; row++)
            {
                for (int column = 0; column < width; column++)
                {
                    double largestSum = 0;
                    for (int c = 0; c < channels; c++)
                    {
                        double sum = filterBias[c], magnitude = Math.Abs(sum);
                        for (int ky = 0; ky < 7; ky++)
                        {
                            for (int kx = 0; kx < 7; kx++)
                            {
                                int sy = row + ky - 3, sx = column + kx - 3;
                                if (sy < 0 || sy >= height || sx < 0 || sx >= width) continue;
                                double term = (double)x[(((((n * height) + sy) * width) + sx) * channels) + c] * filter[(((ky * 7) + kx) * channels) + c];
                                sum += term;
                                magnitude += Math.Abs(term);
                            }
                        }
                        sums[c] = sum;
                        largestSum = Math.Max(largestSum, magnitude);
                    }
                    int at = ((((n * height) + row) * width) + column) * channels;
                    LayerNorm(sums, weight, bias, epsilon, 50 * Numbers.Unit * largestSum, y.AsSpan(at, channels), slack.AsSpan(at, channels));
                }
            }
        }
        return (y, slack);
    }

    /// <summary>Puts the pixels of x [images, height, width, channels] into the order of 2x2 cells: [cells, (ky, kx, channel)].</summary>
    public static T[] GatherCells<T>(ReadOnlySpan<T> x, int images, int height, int width, int channels)
    {
        var y = new T[images * (height / 2) * (width / 2) * 4 * channels];
        int at = 0;
        for (int n = 0; n < images; n++)
        {
            for (int oy = 0; oy < height / 2; oy++)
            {
                for (int ox = 0; ox < width / 2; ox++)
                {
                    for (int k = 0; k < 4; k++)
                    {
                        int pixel = (((n * height) + (2 * oy) + (k / 2)) * width) + (2 * ox) + (k % 2);
                        x.Slice(pixel * channels, channels).CopyTo(y.AsSpan(at));
                        at += channels;
                    }
                }
            }
        }
        return y;
    }

    /// <summary>GELU(v) = v / 2 * (1 + erf(v / sqrt 2)).</summary>
    public static double Gelu(double v) => 0.5 * v * Erfc(-v / Math.Sqrt(2));

    /// <summary>The complementary error function: a series near zero, a continued fraction beyond, both to about 1e-15.</summary>
    public static double Erfc(double x)
    {
        if (x < 0) return 2 - Erfc(-x);
        if (x < 2.5)
        {
            double term = x, sum = x;
            for (int n = 1; n < 80; n++)
            {
                term *= -x * x / n;
                sum += term / ((2 * n) + 1);
            }
            return 1 - (2 / Math.Sqrt(Math.PI) * sum);
        }
        double fraction = 0;
        for (int n = 120; n > 0; n--) fraction = n / 2.0 / (x + fraction);
        return Math.Exp(-x * x) / Math.Sqrt(Math.PI) / (x + fraction);
    }
}

/// <summary>A shape of the depthwise kernel.</summary>
/// <param name="Images">Pictures.</param>
/// <param name="Height">Rows.</param>
/// <param name="Width">Columns.</param>
/// <param name="Channels">Channels.</param>
public sealed record DepthwiseCase(int Images, int Height, int Width, int Channels);
