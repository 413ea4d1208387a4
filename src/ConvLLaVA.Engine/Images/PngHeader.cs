using System.Buffers.Binary;

namespace ConvLLaVA.Engine.Images;

/// <summary>The <c>IHDR</c> chunk of a PNG.</summary>
/// <param name="Width">Columns.</param>
/// <param name="Height">Rows.</param>
/// <param name="Depth">Bits per sample: 1, 2, 4, 8 or 16.</param>
/// <param name="Channels">Samples per pixel: 1 to 4.</param>
/// <param name="IsPalette">True when the samples are palette indices.</param>
/// <param name="IsInterlaced">True for Adam7.</param>
internal readonly record struct PngHeader(int Width, int Height, int Depth, int Channels, bool IsPalette, bool IsInterlaced)
{
    /// <summary>Adam7: first column, first row, column step and row step of each pass.</summary>
    public static readonly (int X, int Y, int StepX, int StepY)[] Adam7 =
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];

    /// <summary>The one pass of a picture without interlacing.</summary>
    public static readonly (int X, int Y, int StepX, int StepY)[] SinglePass = [(0, 0, 1, 1)];

    /// <summary>The passes of this picture.</summary>
    public (int X, int Y, int StepX, int StepY)[] Passes => IsInterlaced ? Adam7 : SinglePass;

    /// <summary>Reads the chunk.</summary>
    /// <exception cref="InvalidInputException">A field has no meaning.</exception>
    public static PngHeader Parse(ReadOnlySpan<byte> body, string name)
    {
        if (body.Length < 13) throw ImageDecoder.Broken(name, "PNG", $"the IHDR chunk has {body.Length} bytes instead of 13");
        uint width = BinaryPrimitives.ReadUInt32BigEndian(body), height = BinaryPrimitives.ReadUInt32BigEndian(body[4..]);
        if (width > int.MaxValue || height > int.MaxValue) throw ImageDecoder.Broken(name, "PNG", $"the header says {width}x{height} pixels");
        int depth = body[8], color = body[9];
        bool known = color switch
        {
            0 => depth is 1 or 2 or 4 or 8 or 16,
            2 or 4 or 6 => depth is 8 or 16,
            3 => depth is 1 or 2 or 4 or 8,
            _ => false,
        };
        if (!known) throw ImageDecoder.Broken(name, "PNG", $"colour type {color} with {depth} bits does not exist");
        if (body[10] != 0 || body[11] != 0 || body[12] > 1)
        {
            throw ImageDecoder.Broken(name, "PNG", $"compression {body[10]}, filter {body[11]} or interlace {body[12]} does not exist");
        }
        int channels = color switch { 2 => 3, 4 => 2, 6 => 4, _ => 1 };
        return new PngHeader((int)width, (int)height, depth, channels, color == 3, body[12] == 1);
    }

    /// <summary>Bytes of one filtered row of a pass, without its filter byte.</summary>
    public int RowBytes(int columns) => checked((int)(((long)columns * Channels * Depth + 7) / 8));

    /// <summary>Bytes of the whole decompressed data.</summary>
    public long RawBytes()
    {
        long total = 0;
        foreach ((int x, int y, int stepX, int stepY) in Passes)
        {
            int columns = (Width - x + stepX - 1) / stepX, rows = (Height - y + stepY - 1) / stepY;
            if (columns > 0 && rows > 0) total += rows * (1L + RowBytes(columns));
        }
        return total;
    }
}
