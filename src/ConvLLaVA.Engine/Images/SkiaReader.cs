using SkiaSharp;

namespace ConvLLaVA.Engine.Images;

/// <summary>JPEG and WebP through SkiaSharp: no colour space is asked for, so that profiles change nothing, and alpha is not multiplied in.</summary>
internal static class SkiaReader
{
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
            byte[] rgba = GC.AllocateUninitializedArray<byte>(checked(4 * width * height));
            SKCodecResult result;
            fixed (byte* target = rgba)
            {
                result = codec.GetPixels(info, (nint)target);
            }
            if (result == SKCodecResult.IncompleteInput) throw ImageDecoder.Truncated(name, format);
            if (result != SKCodecResult.Success) throw ImageDecoder.Broken(name, format, "the pixels cannot be decoded");
            byte[] rgb = GC.AllocateUninitializedArray<byte>(3 * width * height);
            DropAlpha(rgba, rgb);
            return new RgbImage(width, height, rgb);
        }
    }

    private static void DropAlpha(ReadOnlySpan<byte> rgba, Span<byte> rgb)
    {
        for (int i = 0, o = 0; o < rgb.Length; i += 4, o += 3)
        {
            rgb[o] = rgba[i];
            rgb[o + 1] = rgba[i + 1];
            rgb[o + 2] = rgba[i + 2];
        }
    }
}
