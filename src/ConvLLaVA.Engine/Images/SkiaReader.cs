using System.Runtime.Intrinsics;
using SkiaSharp;

namespace ConvLLaVA.Engine.Images;

/// <summary>JPEG and WebP through SkiaSharp: no colour space is asked for, so that profiles change nothing, and alpha is not multiplied in.</summary>
internal static class SkiaReader
{
    private const int StripBytes = 256 * 1024;

    /// <summary>Decodes a JPEG (grey, YCbCr, RGB, CMYK, YCCK; baseline or progressive).</summary>
    public static RgbImage ReadJpeg(ReadOnlySpan<byte> data, string name, ImageLimits limits)
    {
        JpegMarkers markers = JpegMarkers.Read(data, name);
        limits.Check(markers.Width, markers.Height, name);
        // libjpeg fills a missing end with grey; Pillow refuses such a file, and so do we.
        if (!markers.IsComplete) throw ImageDecoder.Truncated(name, "JPEG");
        return Decode(data, name, "JPEG", limits);
    }

    /// <summary>Decodes a WebP (lossy or lossless; the first frame of an animation).</summary>
    public static RgbImage ReadWebp(ReadOnlySpan<byte> data, string name, ImageLimits limits)
    {
        // A RIFF file says its own length: the bytes after the first 8, padded to even.
        if (data.Length < 8L + BitConverter.ToUInt32(data.Slice(4, 4))) throw ImageDecoder.Truncated(name, "WebP");
        return Decode(data, name, "WebP", limits);
    }

    private static unsafe RgbImage Decode(ReadOnlySpan<byte> data, string name, string format, ImageLimits limits)
    {
        fixed (byte* start = data)
        {
            using SKData wrapped = SKData.Create((nint)start, data.Length);
            using SKCodec? codec = SKCodec.Create(wrapped);
            if (codec is null) throw ImageDecoder.Broken(name, format, "the header cannot be read");
            int width = codec.Info.Width, height = codec.Info.Height;
            limits.Check(width, height, name);
            SKImageInfo info = new(width, height, SKColorType.Rgba8888, codec.Info.AlphaType == SKAlphaType.Opaque ? SKAlphaType.Opaque : SKAlphaType.Unpremul);
            byte[] rgb = GC.AllocateUninitializedArray<byte>(3 * width * height);
            SKCodecResult result = codec.StartScanlineDecode(info);
            if (result == SKCodecResult.Success) result = Strips(codec, info, rgb);
            else if (result == SKCodecResult.Unimplemented) result = Whole(codec, info, rgb);
            if (result == SKCodecResult.IncompleteInput) throw ImageDecoder.Truncated(name, format);
            if (result != SKCodecResult.Success) throw ImageDecoder.Broken(name, format, "the pixels cannot be decoded");
            return new RgbImage(width, height, rgb);
        }
    }

    /// <summary>JPEG: a few rows at a time, so that the samples with alpha stay in the cache and cost no memory.</summary>
    private static unsafe SKCodecResult Strips(SKCodec codec, SKImageInfo info, byte[] rgb)
    {
        int rows = Math.Clamp(StripBytes / (4 * info.Width), 1, info.Height);
        byte[] strip = GC.AllocateUninitializedArray<byte>(4 * info.Width * rows);
        fixed (byte* target = strip)
        {
            for (int y = 0; y < info.Height; y += rows)
            {
                int count = Math.Min(rows, info.Height - y);
                if (codec.GetScanlines((nint)target, count, 4 * info.Width) != count) return SKCodecResult.IncompleteInput;
                DropAlpha(strip, rgb.AsSpan(3 * info.Width * y, 3 * info.Width * count));
            }
        }
        return SKCodecResult.Success;
    }

    /// <summary>WebP, which Skia decodes in one piece.</summary>
    private static unsafe SKCodecResult Whole(SKCodec codec, SKImageInfo info, byte[] rgb)
    {
        byte[] rgba = GC.AllocateUninitializedArray<byte>(checked(4 * info.Width * info.Height));
        fixed (byte* target = rgba)
        {
            SKCodecResult result = codec.GetPixels(info, (nint)target);
            if (result == SKCodecResult.Success) DropAlpha(rgba, rgb);
            return result;
        }
    }

    /// <summary>Copies three of every four bytes.</summary>
    private static void DropAlpha(ReadOnlySpan<byte> rgba, Span<byte> rgb)
    {
        int from = 0, to = 0;
        if (Vector128.IsHardwareAccelerated)
        {
            Vector128<byte> order = Vector128.Create((byte)0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0xFF, 0xFF, 0xFF, 0xFF);
            // Sixteen bytes are written of which twelve count; the next step overwrites the rest.
            for (; to + 16 <= rgb.Length; from += 16, to += 12) Vector128.Shuffle(Vector128.Create(rgba[from..]), order).CopyTo(rgb[to..]);
        }
        for (; to < rgb.Length; from += 4, to += 3)
        {
            rgb[to] = rgba[from];
            rgb[to + 1] = rgba[from + 1];
            rgb[to + 2] = rgba[from + 2];
        }
    }
}
