using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Quantization;

/// <summary>The code tables of nf4. The sixteen values are the quantiles of a normal distribution that the original's 4-bit library uses;
/// the 256 values for the scales are its "dynamic" map, whose steps grow with the exponent.</summary>
public static class Nf4
{
    private static readonly float[] s_values =
    [
        -1f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
        -0.09105003625154495f, 0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
        0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1f,
    ];

    private static readonly float[] s_scaleMap = MakeScaleMap();

    /// <summary>The sixteen values, ascending.</summary>
    public static ReadOnlySpan<float> Values => s_values;

    /// <summary>The 256 values that scales less their mean are rounded to, ascending.</summary>
    public static ReadOnlySpan<float> ScaleMap => s_scaleMap;

    /// <summary>Index of the value of <paramref name="table"/> nearest to <paramref name="x"/>, the lower of two.</summary>
    public static int Nearest(ReadOnlySpan<float> table, float x)
    {
        int low = 0, high = table.Length - 1;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (x > (table[middle] + table[middle + 1]) / 2) low = middle + 1;
            else high = middle;
        }
        return low;
    }

    /// <summary>Scales of a matrix in full, second level and offset applied, from number <paramref name="first"/> on. All of them are
    /// <see cref="QuantLayout.ScaleCount"/>: [out, in / 64] unless blocks cross rows.</summary>
    public static unsafe void ExpandScales(QuantizedTensor tensor, long first, Span<float> destination)
    {
        QuantizedBytes bytes = tensor.Bytes;
        for (int i = 0; i < destination.Length; i++)
        {
            float absMax = ((float*)bytes.AbsMax)[(first + i) / QuantLayout.ScalesPerAbsMax];
            destination[i] = (ScaleMap[((byte*)bytes.Scales)[first + i]] * absMax) + bytes.Offset;
        }
    }

    /// <summary>Seven decades from 1e-6 to 1; decade i is cut into 2^i equal parts, whose middles are values, of both signs; then 0 and 1.</summary>
    private static float[] MakeScaleMap()
    {
        List<float> map = [0f, 1f];
        for (int decade = 0; decade < 7; decade++)
        {
            int parts = 1 << decade;
            double size = Math.Pow(10, decade - 6);
            for (int part = 0; part < parts; part++)
            {
                double middle = 0.1 + (0.9 * (part + 0.5) / parts);
                map.Add((float)(size * middle));
                map.Add((float)(-size * middle));
            }
        }
        map.Sort();
        return [.. map];
    }
}
