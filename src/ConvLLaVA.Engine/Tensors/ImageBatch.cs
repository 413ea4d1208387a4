namespace ConvLLaVA.Engine.Tensors;

/// <summary>Preprocessed pictures of one size, still 8-bit, with the table that normalises them: the encoder's input.
/// pixel_values[n, c, y, x] = Lut[c * 256 + Pixels[n][(y * Width + x) * 3 + c]].</summary>
/// <param name="Pixels">One array a picture, RGB. [images][height, width, 3]</param>
/// <param name="Height">Rows of each picture.</param>
/// <param name="Width">Columns of each picture.</param>
/// <param name="Lut">Normalised value of each byte by channel. [3, 256]</param>
public sealed record ImageBatch(IReadOnlyList<byte[]> Pixels, int Height, int Width, float[] Lut)
{
    /// <summary>Number of pictures.</summary>
    public int Count => Pixels.Count;
}
