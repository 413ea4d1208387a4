namespace ConvLLaVA.Engine.Images;

/// <summary>Decodes picture files to the bytes that PIL's <c>Image.open(file).convert("RGB")</c> gives: alpha is dropped without compositing,
/// palettes and grey are expanded, colour profiles and gamma are ignored, and EXIF orientation is not applied. The format is recognised by
/// content. JPEG and WebP go through SkiaSharp, which contains the same libraries as Pillow; PNG, GIF and BMP have readers of their own,
/// because Skia clears the colour of transparent pixels, scales 16-bit grey and applies gamma where Pillow does not.</summary>
public static class ImageDecoder
{
    /// <summary>Decodes a picture in memory; of an animation the first frame.</summary>
    /// <param name="data">The file's bytes.</param>
    /// <param name="name">The name that error messages give the picture.</param>
    /// <param name="limits">What the header may claim; <see cref="ImageLimits.Default"/> when null.</param>
    /// <exception cref="InvalidInputException">The bytes are no picture of a known format, are broken or cut off, or exceed the limits.</exception>
    public static RgbImage Decode(ReadOnlySpan<byte> data, string name, ImageLimits? limits = null)
    {
        ArgumentNullException.ThrowIfNull(name);
        limits ??= ImageLimits.Default;
        if (data.IsEmpty) throw new InvalidInputException($"Image '{name}': found 0 bytes, expected a JPEG, PNG, WebP, GIF or BMP picture.");
        if (data.StartsWith(PngReader.Signature)) return PngReader.Read(data, name, limits);
        if (data.StartsWith((ReadOnlySpan<byte>)[0xFF, 0xD8, 0xFF])) return SkiaReader.ReadJpeg(data, name, limits);
        if (data.StartsWith("GIF87a"u8) || data.StartsWith("GIF89a"u8)) return GifReader.Read(data, name, limits);
        if (data.StartsWith("RIFF"u8) && data.Length >= 12 && data.Slice(8, 4).SequenceEqual("WEBP"u8)) return SkiaReader.ReadWebp(data, name, limits);
        if (data.StartsWith("BM"u8)) return BmpReader.Read(data, name, limits);
        string start = Convert.ToHexString(data[..Math.Min(8, data.Length)]);
        throw new InvalidInputException($"Image '{name}': the content (starting with bytes {start}) is no known picture format, expected JPEG, PNG, WebP, GIF or BMP.");
    }

    /// <inheritdoc cref="Decode(ReadOnlySpan{byte}, string, ImageLimits?)"/>
    public static RgbImage Decode(byte[] data, string name, ImageLimits? limits = null)
    {
        ArgumentNullException.ThrowIfNull(data);
        return Decode(data.AsSpan(), name, limits);
    }

    /// <summary>Reads and decodes a file; error messages give it the name that was passed.</summary>
    /// <param name="path">The file.</param>
    /// <param name="limits">What the header may claim; <see cref="ImageLimits.Default"/> when null.</param>
    /// <exception cref="InvalidInputException">The file cannot be read, or <see cref="Decode(ReadOnlySpan{byte}, string, ImageLimits?)"/> refuses it.</exception>
    public static RgbImage DecodeFile(string path, ImageLimits? limits = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        byte[] data;
        try
        {
            data = File.ReadAllBytes(path);
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new InvalidInputException($"Image '{path}': found no such file, expected a picture.", error);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            string found = Directory.Exists(path) ? "found a folder" : "the file cannot be read";
            throw new InvalidInputException($"Image '{path}': {found}, expected a readable picture file.", error);
        }
        return Decode(data, path, limits);
    }

    /// <summary>The refusal of a file that ends too early.</summary>
    internal static InvalidInputException Truncated(string name, string format, Exception? cause = null)
    {
        string message = $"Image '{name}': found truncated {format} data, expected a complete picture.";
        return cause is null ? new InvalidInputException(message) : new InvalidInputException(message, cause);
    }

    /// <summary>The refusal of a file whose parts contradict the format.</summary>
    internal static InvalidInputException Broken(string name, string format, string what, Exception? cause = null)
    {
        string message = $"Image '{name}': found broken {format} data ({what}), expected a valid {format} picture.";
        return cause is null ? new InvalidInputException(message) : new InvalidInputException(message, cause);
    }
}
