using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Where a depthwise convolution with LayerNorm reads and writes.</summary>
/// <param name="Map">One map. [height, width, channels]</param>
/// <param name="Height">Rows of the map.</param>
/// <param name="Width">Columns of the map.</param>
/// <param name="Channels">Channels.</param>
/// <param name="Filter">[channels / 16, 49, 16], the last block padded with zeros</param>
/// <param name="Bias">[channels]</param>
/// <param name="NormWeight">[channels]</param>
/// <param name="NormBias">[channels]</param>
/// <param name="Epsilon">Added to the variance.</param>
/// <param name="Output">[height, width, channels]</param>
internal readonly record struct DepthwiseCall(nint Map, int Height, int Width, int Channels, nint Filter, nint Bias,
    nint NormWeight, nint NormBias, float Epsilon, nint Output);

/// <summary>The 7 x 7 depthwise convolution, channels-last, and the LayerNorm of its results while they are in the cache.
/// Each output adds its taps to the bias in row order with fused multiply-adds, whatever tile it falls into.</summary>
internal static unsafe class Depthwise<V, S> where V : struct where S : struct, ISimd<V>
{
    // Inlined into a caller, these loops would be compiled with what the runtime learnt there, and keep their sums in memory.
    private const MethodImplOptions Hot = MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining;

    private const int Size = 7;
    private const int Margin = Size / 2;

    /// <summary>Neighbouring outputs of a row that are computed together.</summary>
    private const int TileWidth = 4;

    /// <summary>Output columns of a task; 24 divides the maps of the published picture sizes.</summary>
    public const int SegmentWidth = 24;

    /// <summary>Rows of a task, where a map is large enough: the more, the less of its input is margin.</summary>
    public const int MostRows = 8;

    /// <summary>Floats of scratch memory: 16 channels of a segment with its margins.</summary>
    public const int ScratchFloats = (MostRows + Size - 1) * (SegmentWidth + Size - 1) * Simd.Lanes;

    /// <summary>Output rows [y0, y0 + rows) and columns [x0, x0 + SegmentWidth), as far as the map has them.</summary>
    public static void Segment(in DepthwiseCall call, int y0, int rows, int x0, float* window)
    {
        int channels = call.Channels, whole = channels & ~(Simd.Lanes - 1);
        int width = Math.Min(SegmentWidth, call.Width - x0);
        int windowWidth = ((width + TileWidth - 1) & ~(TileWidth - 1)) + Size - 1;
        float* output = (float*)call.Output + ((nint)y0 * call.Width + x0) * channels;
        for (int c = 0; c < whole; c += Simd.Lanes)
        {
            // Copied, because neighbouring pixels are thousands of bytes apart and would evict each other from the first-level cache.
            FillWindow(call, y0 - Margin, rows + Size - 1, x0 - Margin, windowWidth, c, window);
            float* taps = (float*)call.Filter + (nint)c * Size * Size;
            for (int x = 0; x < width; x += TileWidth)
            {
                int count = Math.Min(TileWidth, width - x);
                if (c + Simd.Lanes < whole) Prefetch(call, y0 - Margin, rows + Size - 1, x0 - Margin + x, c + Simd.Lanes);
                float* to = output + (nint)x * channels + c;
                int y = 0;
                for (; S.HasWideTiles && y + 4 <= rows; y += 4)
                    Tile4x4(window + (y * windowWidth + x) * Simd.Lanes, windowWidth * Simd.Lanes, taps, (float*)call.Bias + c,
                        to + (nint)y * call.Width * channels, channels, (nint)call.Width * channels, count);
                for (; y < rows; y++)
                    Tile1x4(window + (y * windowWidth + x) * Simd.Lanes, windowWidth * Simd.Lanes, taps, (float*)call.Bias + c,
                        to + (nint)y * call.Width * channels, channels, count);
            }
        }
        for (int y = 0; y < rows; y++)
        {
            for (int x = 0; x < width; x++)
            {
                float* pixel = output + ((nint)y * call.Width + x) * channels;
                if (whole != channels) Rest(call, y0 + y, x0 + x, whole, pixel);
                Norms<V, S>.LayerNorm(pixel, channels, (float*)call.NormWeight, (float*)call.NormBias, call.Epsilon, pixel);
            }
        }
    }

    // The next channels of the pixels that a tile reads first: each of their cache lines is far from the others, which the
    // processor's own prefetchers do not foresee.
    [MethodImpl(Hot)]
    private static void Prefetch(in DepthwiseCall call, int y0, int rows, int x0, int c)
    {
        if (!Sse.IsSupported) return;
        int y1 = Math.Min(y0 + rows, call.Height), first = Math.Max(0, x0), last = Math.Min(x0 + TileWidth + 1, call.Width);
        nint step = call.Channels;
        for (int y = Math.Max(0, y0); y < y1; y++)
        {
            float* from = (float*)call.Map + ((nint)y * call.Width + first) * step + c;
            for (int x = first; x < last; x++, from += step) Simd.Prefetch((byte*)from);
        }
    }

    // window [rows, width, 16], zeros beyond the border
    [MethodImpl(Hot)]
    private static void FillWindow(in DepthwiseCall call, int y0, int rows, int x0, int width, int c, float* window)
    {
        int first = Math.Max(0, -x0), last = Math.Min(width, call.Width - x0);
        nint step = call.Channels;
        for (int y = y0; y < y0 + rows; y++)
        {
            if (y < 0 || y >= call.Height)
            {
                for (int x = 0; x < width; x++, window += Simd.Lanes) S.Store(window, S.Zero);
                continue;
            }
            float* from = (float*)call.Map + ((nint)y * call.Width + x0 + first) * step + c;
            int at = 0;
            for (; at < first; at++, window += Simd.Lanes) S.Store(window, S.Zero);
            for (; at < last; at++, window += Simd.Lanes, from += step) S.Store(window, S.Load(from));
            for (; at < width; at++, window += Simd.Lanes) S.Store(window, S.Zero);
        }
    }

    // Four rows of four outputs. from [10, stride], taps [49, 16]
    [MethodImpl(Hot)]
    private static void Tile4x4(float* from, nint stride, float* taps, float* bias, float* to, nint channels, nint rowStride, int count)
    {
        V a00 = S.Load(bias), a01 = a00, a02 = a00, a03 = a00;
        V a10 = a00, a11 = a00, a12 = a00, a13 = a00;
        V a20 = a00, a21 = a00, a22 = a00, a23 = a00;
        V a30 = a00, a31 = a00, a32 = a00, a33 = a00;
        const int row = Size * Simd.Lanes;
        for (int y = 0; y < Size + 3; y++)
        {
            // Input row y meets filter row y - r for output row r.
            float* x = from + y * stride;
            float* tap = taps + y * row;
            for (int kx = 0; kx < Size; kx++)
            {
                V x0 = S.Load(x), x1 = S.Load(x + 16), x2 = S.Load(x + 32), x3 = S.Load(x + 48);
                if (y < Size)
                {
                    V w = S.Load(tap);
                    a00 = S.MultiplyAdd(x0, w, a00);
                    a01 = S.MultiplyAdd(x1, w, a01);
                    a02 = S.MultiplyAdd(x2, w, a02);
                    a03 = S.MultiplyAdd(x3, w, a03);
                }
                if ((uint)(y - 1) < Size)
                {
                    V w = S.Load(tap - row);
                    a10 = S.MultiplyAdd(x0, w, a10);
                    a11 = S.MultiplyAdd(x1, w, a11);
                    a12 = S.MultiplyAdd(x2, w, a12);
                    a13 = S.MultiplyAdd(x3, w, a13);
                }
                if ((uint)(y - 2) < Size)
                {
                    V w = S.Load(tap - 2 * row);
                    a20 = S.MultiplyAdd(x0, w, a20);
                    a21 = S.MultiplyAdd(x1, w, a21);
                    a22 = S.MultiplyAdd(x2, w, a22);
                    a23 = S.MultiplyAdd(x3, w, a23);
                }
                if ((uint)(y - 3) < Size)
                {
                    V w = S.Load(tap - 3 * row);
                    a30 = S.MultiplyAdd(x0, w, a30);
                    a31 = S.MultiplyAdd(x1, w, a31);
                    a32 = S.MultiplyAdd(x2, w, a32);
                    a33 = S.MultiplyAdd(x3, w, a33);
                }
                x += Simd.Lanes;
                tap += Simd.Lanes;
            }
        }
        Put(to, channels, count, a00, a01, a02, a03);
        Put(to + rowStride, channels, count, a10, a11, a12, a13);
        Put(to + 2 * rowStride, channels, count, a20, a21, a22, a23);
        Put(to + 3 * rowStride, channels, count, a30, a31, a32, a33);
    }

    // One row of four outputs. from [7, stride], taps [49, 16]
    [MethodImpl(Hot)]
    private static void Tile1x4(float* from, nint stride, float* tap, float* bias, float* to, nint channels, int count)
    {
        V a0 = S.Load(bias), a1 = a0, a2 = a0, a3 = a0;
        for (int ky = 0; ky < Size; ky++)
        {
            float* x = from + ky * stride;
            for (int kx = 0; kx < Size; kx++)
            {
                V w = S.Load(tap);
                a0 = S.MultiplyAdd(S.Load(x), w, a0);
                a1 = S.MultiplyAdd(S.Load(x + 16), w, a1);
                a2 = S.MultiplyAdd(S.Load(x + 32), w, a2);
                a3 = S.MultiplyAdd(S.Load(x + 48), w, a3);
                x += Simd.Lanes;
                tap += Simd.Lanes;
            }
        }
        Put(to, channels, count, a0, a1, a2, a3);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Put(float* to, nint channels, int count, V a, V b, V c, V d)
    {
        S.Store(to, a);
        if (count > 1) S.Store(to + channels, b);
        if (count > 2) S.Store(to + 2 * channels, c);
        if (count > 3) S.Store(to + 3 * channels, d);
    }

    // The channels of one pixel that do not fill a vector.
    private static void Rest(in DepthwiseCall call, int y, int x, int first, float* output)
    {
        float* map = (float*)call.Map, filter = (float*)call.Filter, bias = (float*)call.Bias;
        for (int c = first; c < call.Channels; c++)
        {
            float sum = bias[c];
            for (int ky = Math.Max(0, Margin - y); ky < Math.Min(Size, call.Height + Margin - y); ky++)
            {
                for (int kx = Math.Max(0, Margin - x); kx < Math.Min(Size, call.Width + Margin - x); kx++)
                {
                    float value = map[((nint)(y + ky - Margin) * call.Width + x + kx - Margin) * call.Channels + c];
                    sum = MathF.FusedMultiplyAdd(value, filter[((nint)(c / Simd.Lanes) * Size * Size + ky * Size + kx) * Simd.Lanes + c % Simd.Lanes], sum);
                }
            }
            output[c] = sum;
        }
    }
}
