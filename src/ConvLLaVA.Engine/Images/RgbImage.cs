namespace ConvLLaVA.Engine.Images;

/// <summary>A picture of 8-bit red, green and blue samples, as PIL's <c>Image.convert("RGB")</c> holds it.</summary>
public sealed class RgbImage
{
    /// <summary>Wraps existing samples; the array is not copied.</summary>
    /// <param name="width">Columns, at least 1.</param>
    /// <param name="height">Rows, at least 1.</param>
    /// <param name="pixels">Samples <c>[height, width, 3]</c>, row-major, red first.</param>
    /// <exception cref="ArgumentOutOfRangeException">A side is below 1.</exception>
    /// <exception cref="ArgumentException">The array's length is not <c>3 * width * height</c>.</exception>
    public RgbImage(int width, int height, byte[] pixels)
    {
        ArgumentNullException.ThrowIfNull(pixels);
        ArgumentOutOfRangeException.ThrowIfLessThan(width, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(height, 1);
        if (pixels.LongLength != 3L * width * height)
        {
            throw new ArgumentException($"A {width}x{height} picture needs {3L * width * height} samples, found {pixels.LongLength}.", nameof(pixels));
        }
        Width = width;
        Height = height;
        Pixels = pixels;
    }

    /// <summary>Columns.</summary>
    public int Width { get; }

    /// <summary>Rows.</summary>
    public int Height { get; }

    /// <summary>Samples <c>[Height, Width, 3]</c>, row-major, red first.</summary>
    public byte[] Pixels { get; }
}
