using System.Runtime.Intrinsics;

namespace ConvLLaVA.Engine.Images;

/// <summary>Which instructions the resampler uses.</summary>
internal enum ResamplePath
{
    /// <summary>The widest that this processor has.</summary>
    Auto,

    /// <summary>One sample at a time.</summary>
    Scalar,

    /// <summary>.NET's portable 128-bit vectors (ARM64 and older x86).</summary>
    Vector128,

    /// <summary>x86 AVX2.</summary>
    Avx2,

    /// <summary>x86 AVX-512 F and BW.</summary>
    Avx512,
}

/// <summary>The two inner loops of the resampler. Every implementation gives the same bytes: sums are taken modulo 2^32 and the true sum
/// always fits 32 bits, so the order of additions and the split of weights into halves do not matter.</summary>
internal unsafe interface IResampleKernel
{
    /// <summary>Filters four rows of RGB samples along x.</summary>
    /// <param name="source">Four row starts; <c>3 * filter.Taps + 16</c> bytes past each row's end may be read.</param>
    /// <param name="target">Four row starts; one byte past each row's end may be written. Rows may repeat.</param>
    /// <param name="filter">The taps along x.</param>
    static abstract void Horizontal(byte** source, byte** target, AxisFilter filter);

    /// <summary>Filters along y into one row.</summary>
    /// <param name="rows">The first source row; <c>filter.Taps</c> rows may be read.</param>
    /// <param name="stride">Bytes from row to row: a multiple of 64, and all of it may be read and (in the target) written.</param>
    /// <param name="filter">The taps along y.</param>
    /// <param name="position">The output position in the filter.</param>
    /// <param name="target">The row to write.</param>
    static abstract void Vertical(byte* rows, nint stride, AxisFilter filter, int position, byte* target);
}

/// <summary>Plain loops: the path of last resort.</summary>
internal readonly unsafe struct ScalarKernel : IResampleKernel
{
    /// <inheritdoc/>
    public static void Horizontal(byte** source, byte** target, AxisFilter filter)
    {
        for (int row = 0; row < 4; row++)
        {
            for (int x = 0; x < filter.First.Length; x++)
            {
                byte* from = source[row] + 3 * (nint)filter.First[x];
                int red = AxisFilter.Rounding, green = red, blue = red;
                ReadOnlySpan<int> weights = filter.Weights.AsSpan(x * filter.Taps, filter.Count[x]);
                foreach (int weight in weights)
                {
                    red += from[0] * weight;
                    green += from[1] * weight;
                    blue += from[2] * weight;
                    from += 3;
                }
                byte* to = target[row] + 3 * (nint)x;
                to[0] = Clip(red);
                to[1] = Clip(green);
                to[2] = Clip(blue);
            }
        }
    }

    /// <inheritdoc/>
    public static void Vertical(byte* rows, nint stride, AxisFilter filter, int position, byte* target)
    {
        ReadOnlySpan<int> weights = filter.Weights.AsSpan(position * filter.Taps, filter.Count[position]);
        for (nint i = 0; i < stride; i++)
        {
            int sum = AxisFilter.Rounding;
            byte* from = rows + i;
            foreach (int weight in weights)
            {
                sum += *from * weight;
                from += stride;
            }
            target[i] = Clip(sum);
        }
    }

    private static byte Clip(int sum) => (byte)Math.Clamp(sum >> AxisFilter.FractionBits, 0, 255);
}

/// <summary>.NET's portable 128-bit vectors: one pixel's channels, or 16 columns, at a time.</summary>
internal readonly unsafe struct Vector128Kernel : IResampleKernel
{
    /// <inheritdoc/>
    public static void Horizontal(byte** source, byte** target, AxisFilter filter)
    {
        for (int row = 0; row < 4; row++)
        {
            for (int x = 0; x < filter.First.Length; x++)
            {
                byte* from = source[row] + 3 * (nint)filter.First[x];
                Vector128<int> sum = Vector128.Create(AxisFilter.Rounding);
                ReadOnlySpan<int> weights = filter.Weights.AsSpan(x * filter.Taps, filter.Count[x]);
                foreach (int weight in weights)
                {
                    Vector128<byte> pixel = Vector128.CreateScalar(*(uint*)from).AsByte();
                    sum += Vector128.WidenLower(Vector128.WidenLower(pixel)).AsInt32() * weight;
                    from += 3;
                }
                Vector128<int> clipped = Clip(sum);
                byte* to = target[row] + 3 * (nint)x;
                to[0] = (byte)clipped.GetElement(0);
                to[1] = (byte)clipped.GetElement(1);
                to[2] = (byte)clipped.GetElement(2);
            }
        }
    }

    /// <inheritdoc/>
    public static void Vertical(byte* rows, nint stride, AxisFilter filter, int position, byte* target)
    {
        ReadOnlySpan<int> weights = filter.Weights.AsSpan(position * filter.Taps, filter.Count[position]);
        for (nint i = 0; i < stride; i += 16)
        {
            Vector128<int> sum0 = Vector128.Create(AxisFilter.Rounding), sum1 = sum0, sum2 = sum0, sum3 = sum0;
            byte* from = rows + i;
            foreach (int weight in weights)
            {
                (Vector128<ushort> low, Vector128<ushort> high) = Vector128.Widen(Vector128.Load(from));
                sum0 += Vector128.WidenLower(low).AsInt32() * weight;
                sum1 += Vector128.WidenUpper(low).AsInt32() * weight;
                sum2 += Vector128.WidenLower(high).AsInt32() * weight;
                sum3 += Vector128.WidenUpper(high).AsInt32() * weight;
                from += stride;
            }
            Vector128<short> first = Vector128.Narrow(Clip(sum0), Clip(sum1));
            Vector128<short> second = Vector128.Narrow(Clip(sum2), Clip(sum3));
            Vector128.Narrow(first.AsUInt16(), second.AsUInt16()).Store(target + i);
        }
    }

    private static Vector128<int> Clip(Vector128<int> sum) =>
        Vector128.Min(Vector128.Max(sum >> AxisFilter.FractionBits, Vector128<int>.Zero), Vector128.Create(255));
}
