using System.Runtime.CompilerServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>The 7 x 7 depthwise convolution, channels-last. Each output adds its taps to the bias in row order with fused
/// multiply-adds and leaves out those beyond the border, whichever loop below computes it.</summary>
internal static unsafe class Depthwise<V, S> where V : struct where S : struct, ISimd<V>
{
    private const int Size = 7;
    private const int Margin = Size / 2;

    /// <summary>Neighbouring outputs that share a load of each tap.</summary>
    private const int Strip = 8;

    /// <summary>One row of one map.</summary>
    /// <param name="map">[height, width, channels]</param>
    /// <param name="height">Rows of the map.</param>
    /// <param name="width">Columns of the map.</param>
    /// <param name="channels">Channels.</param>
    /// <param name="y">Which row.</param>
    /// <param name="filter">[49, channels]</param>
    /// <param name="bias">[channels]</param>
    /// <param name="output">[width, channels]</param>
    public static void Row(float* map, int height, int width, int channels, int y, float* filter, float* bias, float* output)
    {
        int ky0 = Math.Max(0, Margin - y), ky1 = Math.Min(Size, height + Margin - y);
        int x = 0;
        for (; x < Math.Min(Margin, width); x++) Pixel(map, width, channels, y, x, ky0, ky1, filter, bias, output + (nint)x * channels);
        for (; x + Strip + Margin <= width; x += Strip)
            Pixels8(map, width, channels, y, x, ky0, ky1, filter, bias, output + (nint)x * channels);
        for (; x < width; x++) Pixel(map, width, channels, y, x, ky0, ky1, filter, bias, output + (nint)x * channels);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Pixels8(float* map, int width, int channels, int y, int x, int ky0, int ky1, float* filter, float* bias, float* output)
    {
        int whole = channels & ~(Simd.Lanes - 1);
        nint c1 = channels, c2 = c1 * 2, c3 = c1 * 3, c4 = c1 * 4;
        for (int c = 0; c < whole; c += Simd.Lanes)
        {
            V a0 = S.Load(bias + c), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0;
            for (int ky = ky0; ky < ky1; ky++)
            {
                float* from = map + ((nint)(y + ky - Margin) * width + x - Margin) * channels + c;
                float* tap = filter + (nint)ky * Size * channels + c;
                for (int kx = 0; kx < Size; kx++)
                {
                    V w = S.Load(tap);
                    float* upper = from + c4;
                    a0 = S.MultiplyAdd(S.Load(from), w, a0);
                    a1 = S.MultiplyAdd(S.Load(from + c1), w, a1);
                    a2 = S.MultiplyAdd(S.Load(from + c2), w, a2);
                    a3 = S.MultiplyAdd(S.Load(from + c3), w, a3);
                    a4 = S.MultiplyAdd(S.Load(upper), w, a4);
                    a5 = S.MultiplyAdd(S.Load(upper + c1), w, a5);
                    a6 = S.MultiplyAdd(S.Load(upper + c2), w, a6);
                    a7 = S.MultiplyAdd(S.Load(upper + c3), w, a7);
                    from += channels;
                    tap += channels;
                }
            }
            float* to = output + c;
            S.Store(to, a0);
            S.Store(to + c1, a1);
            S.Store(to + c2, a2);
            S.Store(to + c3, a3);
            S.Store(to + c4, a4);
            S.Store(to + c4 + c1, a5);
            S.Store(to + c4 + c2, a6);
            S.Store(to + c4 + c3, a7);
        }
        if (whole == channels) return;
        for (int i = 0; i < Strip; i++)
            PixelTail(map, width, channels, whole, y, x + i, ky0, ky1, 0, Size, filter, bias, output + i * c1);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Pixel(float* map, int width, int channels, int y, int x, int ky0, int ky1, float* filter, float* bias, float* output)
    {
        int kx0 = Math.Max(0, Margin - x), kx1 = Math.Min(Size, width + Margin - x);
        int whole = channels & ~(Simd.Lanes - 1), c = 0;
        for (; c + 4 * Simd.Lanes <= whole; c += 4 * Simd.Lanes)
        {
            V a0 = S.Load(bias + c), a1 = S.Load(bias + c + 16), a2 = S.Load(bias + c + 32), a3 = S.Load(bias + c + 48);
            for (int ky = ky0; ky < ky1; ky++)
            {
                float* from = map + ((nint)(y + ky - Margin) * width + x + kx0 - Margin) * channels + c;
                float* tap = filter + (nint)(ky * Size + kx0) * channels + c;
                for (int kx = kx0; kx < kx1; kx++)
                {
                    a0 = S.MultiplyAdd(S.Load(from), S.Load(tap), a0);
                    a1 = S.MultiplyAdd(S.Load(from + 16), S.Load(tap + 16), a1);
                    a2 = S.MultiplyAdd(S.Load(from + 32), S.Load(tap + 32), a2);
                    a3 = S.MultiplyAdd(S.Load(from + 48), S.Load(tap + 48), a3);
                    from += channels;
                    tap += channels;
                }
            }
            S.Store(output + c, a0);
            S.Store(output + c + 16, a1);
            S.Store(output + c + 32, a2);
            S.Store(output + c + 48, a3);
        }
        for (; c < whole; c += Simd.Lanes)
        {
            V sum = S.Load(bias + c);
            for (int ky = ky0; ky < ky1; ky++)
            {
                float* from = map + ((nint)(y + ky - Margin) * width + x + kx0 - Margin) * channels + c;
                float* tap = filter + (nint)(ky * Size + kx0) * channels + c;
                for (int kx = kx0; kx < kx1; kx++)
                {
                    sum = S.MultiplyAdd(S.Load(from), S.Load(tap), sum);
                    from += channels;
                    tap += channels;
                }
            }
            S.Store(output + c, sum);
        }
        if (whole != channels) PixelTail(map, width, channels, whole, y, x, ky0, ky1, kx0, kx1, filter, bias, output);
    }

    // The channels that do not fill a vector.
    private static void PixelTail(float* map, int width, int channels, int first, int y, int x,
        int ky0, int ky1, int kx0, int kx1, float* filter, float* bias, float* output)
    {
        for (int c = first; c < channels; c++)
        {
            float sum = bias[c];
            for (int ky = ky0; ky < ky1; ky++)
            {
                for (int kx = kx0; kx < kx1; kx++)
                {
                    float value = map[((nint)(y + ky - Margin) * width + x + kx - Margin) * channels + c];
                    sum = MathF.FusedMultiplyAdd(value, filter[(nint)(ky * Size + kx) * channels + c], sum);
                }
            }
            output[c] = sum;
        }
    }
}
