using System.Globalization;
using Xunit;

namespace ConvLLaVA.Kernels.Tests;

/// <summary>Test data and comparison.</summary>
internal static class Numbers
{
    /// <summary>Unit of fp32 arithmetic: the relative error of one operation.</summary>
    public const double Unit = 1.0 / (1 << 24);

    /// <summary>Normally distributed numbers as <paramref name="storage"/> holds them.</summary>
    public static float[] Normal(int seed, int count, Storage storage = Storage.F32, double scale = 1, double mean = 0)
    {
        var random = new Random(seed);
        var values = new float[count];
        for (int i = 0; i < count; i++)
        {
            double radius = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble()));
            values[i] = storage.Round(mean + (scale * radius * Math.Cos(2 * Math.PI * random.NextDouble())));
        }
        return values;
    }

    /// <summary>Compares an answer with the reference. An answer may differ by one rounding to <paramref name="storage"/> and by
    /// <paramref name="slack"/>, a bound of what fp32 arithmetic ahead of it costs. NaN is never right.</summary>
    /// <param name="expected">The reference, in double precision.</param>
    /// <param name="actual">The kernel's answer.</param>
    /// <param name="storage">Type of the answer.</param>
    /// <param name="slack">Allowed error of element i ahead of the rounding.</param>
    /// <param name="what">What is compared, for the message.</param>
    public static void AssertClose(ReadOnlySpan<double> expected, ReadOnlySpan<float> actual, Storage storage, Func<int, double> slack, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        int worst = -1, wrong = 0;
        double worstRatio = 1;
        for (int i = 0; i < expected.Length; i++)
        {
            double before = slack(i);
            double allowed = before + storage.HalfUlp(Math.Abs(expected[i]) + before);
            double error = Math.Abs(actual[i] - expected[i]);
            double ratio = double.IsNaN(error) || double.IsNaN(allowed) ? double.PositiveInfinity : error / allowed;
            if (ratio <= 1) continue;
            wrong++;
            if (ratio < worstRatio || (worst >= 0 && ratio == worstRatio)) continue;
            worstRatio = ratio;
            worst = i;
        }
        if (worst < 0) return;
        Assert.Fail(string.Create(CultureInfo.InvariantCulture,
            $"{what} ({storage}): {wrong} of {expected.Length} elements are off; worst element {worst} is {actual[worst]:R}, should be {expected[worst]:R}, {worstRatio:F1} times the allowed error"));
    }

    /// <summary>The largest of |x|, of |y| and so on.</summary>
    public static double LargestMagnitude(ReadOnlySpan<float> values)
    {
        double largest = 0;
        foreach (float value in values) largest = Math.Max(largest, Math.Abs(value));
        return largest;
    }
}
