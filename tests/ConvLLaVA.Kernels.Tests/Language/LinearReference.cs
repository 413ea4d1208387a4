namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>RMSNorm and linear layers in double precision, with bounds of what fp32 arithmetic costs ahead of the rounding to storage.</summary>
internal static class LinearReference
{
    /// <summary>x / sqrt(mean(x^2) + epsilon) * weight, row by row.</summary>
    public static (double[] Y, double[] Slack) RmsNorm(ReadOnlySpan<float> x, int columns, ReadOnlySpan<float> weight, float epsilon)
    {
        var y = new double[x.Length];
        var slack = new double[x.Length];
        for (int start = 0; start < x.Length; start += columns)
        {
            double squares = 0;
            for (int c = 0; c < columns; c++) squares += (double)x[start + c] * x[start + c];
            double scale = 1 / Math.Sqrt((squares / columns) + epsilon);
            for (int c = 0; c < columns; c++)
            {
                y[start + c] = x[start + c] * scale * weight[c];
                slack[start + c] = Math.Abs(y[start + c]) * Numbers.Unit * (20 + (columns / 64.0));
            }
        }
        return (y, slack);
    }

    /// <summary>x W^T of x [rows, columns] and W [outputs, columns], with RMSNorm first when <paramref name="normWeight"/> is given.</summary>
    /// <returns>Products and the error they may have.</returns>
    public static (double[] Y, double[] Slack) Product(ReadOnlySpan<float> x, int columns, ReadOnlySpan<float> normWeight, float epsilon, ReadOnlySpan<float> weight, Storage storage)
    {
        int rows = x.Length / columns, outputs = weight.Length / columns;
        var inputs = new double[x.Length];
        var inputSlack = new double[x.Length];
        if (normWeight.IsEmpty)
        {
            for (int i = 0; i < inputs.Length; i++) inputs[i] = x[i];
        }
        else
        {
            (double[] normalised, double[] before) = RmsNorm(x, columns, normWeight, epsilon);
            for (int i = 0; i < inputs.Length; i++)
            {
                inputs[i] = storage.Round(normalised[i]);
                // Where fp32 arithmetic may cross the border between two numbers of storage, the kernel may have taken the other one.
                double halfUlp = storage.HalfUlp(normalised[i]);
                bool border = halfUlp - Math.Abs(inputs[i] - normalised[i]) <= before[i];
                inputSlack[i] = border ? before[i] + (2 * halfUlp) : 0;
            }
        }
        var y = new double[rows * outputs];
        var slack = new double[rows * outputs];
        for (int r = 0; r < rows; r++)
        {
            for (int o = 0; o < outputs; o++)
            {
                double sum = 0, magnitude = 0, borders = 0;
                for (int c = 0; c < columns; c++)
                {
                    double w = weight[(o * columns) + c], v = inputs[(r * columns) + c];
                    sum += v * w;
                    magnitude += Math.Abs(v * w);
                    borders += inputSlack[(r * columns) + c] * Math.Abs(w);
                }
                y[(r * outputs) + o] = sum;
                // A lane adds columns / 32 products one behind the other, then five partial sums.
                slack[(r * outputs) + o] = borders + (magnitude * Numbers.Unit * (8 + (columns / 32.0)));
            }
        }
        return (y, slack);
    }

    /// <summary>silu(gate) * up, and the error it may have: silu has a slope below 1.1.</summary>
    public static (double Value, double Slack) SwiGlu(double gate, double gateError, double up, double upError)
    {
        double silu = gate / (1 + Math.Exp(-gate)), value = silu * up;
        return (value, (1.1 * gateError * Math.Abs(up)) + (Math.Abs(silu) * (upError + (4 * Numbers.Unit * Math.Abs(up)))) + (12 * Numbers.Unit * Math.Abs(value)));
    }
}
