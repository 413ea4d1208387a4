namespace ConvLLaVA.Engine.Images;

/// <summary>Undoes a PNG's row filters and turns its samples into RGB.</summary>
internal sealed class PngRows(PngHeader header, byte[] palette, Stream stream, string name)
{
    private readonly byte[] _pixels = new byte[3 * header.Width * header.Height];

    /// <summary>Reads all rows.</summary>
    /// <exception cref="EndOfStreamException">The data ends before the last row.</exception>
    /// <exception cref="InvalidDataException">The data does not decompress.</exception>
    /// <exception cref="InvalidInputException">A row has an unknown filter.</exception>
    public RgbImage Decode()
    {
        int pixelBytes = Math.Max(1, header.Channels * header.Depth / 8);
        foreach ((int x, int y, int stepX, int stepY) in header.Passes)
        {
            int columns = (header.Width - x + stepX - 1) / stepX, rows = (header.Height - y + stepY - 1) / stepY;
            if (columns <= 0 || rows <= 0) continue;
            int bytes = header.RowBytes(columns);
            // One byte of filter type in front; the row above the first counts as zeros.
            byte[] previous = new byte[1 + bytes], current = new byte[1 + bytes];
            for (int row = 0; row < rows; row++)
            {
                stream.ReadExactly(current);
                Unfilter(current[0], current.AsSpan(1), previous.AsSpan(1), pixelBytes);
                Spread(current.AsSpan(1), columns, 3 * ((y + row * stepY) * header.Width + x), 3 * stepX);
                (previous, current) = (current, previous);
            }
        }
        return new RgbImage(header.Width, header.Height, _pixels);
    }

    private void Unfilter(byte filter, Span<byte> row, ReadOnlySpan<byte> above, int pixelBytes)
    {
        switch (filter)
        {
            case 0:
                break;
            case 1:
                for (int i = pixelBytes; i < row.Length; i++) row[i] += row[i - pixelBytes];
                break;
            case 2:
                for (int i = 0; i < row.Length; i++) row[i] += above[i];
                break;
            case 3:
                for (int i = 0; i < row.Length; i++) row[i] += (byte)(((i < pixelBytes ? 0 : row[i - pixelBytes]) + above[i]) / 2);
                break;
            case 4:
                for (int i = 0; i < Math.Min(pixelBytes, row.Length); i++) row[i] += above[i];
                for (int i = pixelBytes; i < row.Length; i++) row[i] += Paeth(row[i - pixelBytes], above[i], above[i - pixelBytes]);
                break;
            default:
                throw ImageDecoder.Broken(name, "PNG", $"row filter {filter} does not exist");
        }
    }

    private static byte Paeth(int left, int above, int corner)
    {
        int toLeft = Math.Abs(above - corner), toAbove = Math.Abs(left - corner), toCorner = Math.Abs(left + above - 2 * corner);
        if (toLeft <= toAbove && toLeft <= toCorner) return (byte)left;
        return (byte)(toAbove <= toCorner ? above : corner);
    }

    private void Spread(ReadOnlySpan<byte> row, int columns, int at, int step)
    {
        int sampleBytes = header.Depth == 16 ? 2 : 1;
        if (header.Channels == 3 && header.Depth == 8 && step == 3)
        {
            row.CopyTo(_pixels.AsSpan(at));
            return;
        }
        if (header.Channels >= 3)
        {
            // The high byte comes first in 16-bit samples, and it is all that Pillow keeps of them.
            int pixelBytes = header.Channels * sampleBytes;
            for (int i = 0; i < columns; i++, at += step)
            {
                ReadOnlySpan<byte> from = row.Slice(i * pixelBytes, pixelBytes);
                Put(at, from[0], from[sampleBytes], from[2 * sampleBytes]);
            }
        }
        else if (header.Channels == 2)
        {
            for (int i = 0; i < columns; i++, at += step) PutGrey(at, row[2 * i * sampleBytes]);
        }
        else if (header.Depth == 16)
        {
            // Pillow holds 16-bit grey as an integer and clips it on the way to RGB.
            for (int i = 0; i < columns; i++, at += step) PutGrey(at, row[2 * i] == 0 ? row[2 * i + 1] : (byte)255);
        }
        else
        {
            SpreadSmall(row, columns, at, step);
        }
    }

    private void SpreadSmall(ReadOnlySpan<byte> row, int columns, int at, int step)
    {
        int depth = header.Depth, mask = (1 << depth) - 1, grey = 255 / mask;
        for (int i = 0; i < columns; i++, at += step)
        {
            int bit = i * depth;
            int value = (row[bit >> 3] >> (8 - depth - (bit & 7))) & mask;
            if (header.IsPalette) Put(at, palette[3 * value], palette[3 * value + 1], palette[3 * value + 2]);
            else PutGrey(at, (byte)(value * grey));
        }
    }

    private void PutGrey(int at, byte value) => Put(at, value, value, value);

    private void Put(int at, byte red, byte green, byte blue)
    {
        _pixels[at] = red;
        _pixels[at + 1] = green;
        _pixels[at + 2] = blue;
    }
}
