namespace ConvLLaVA.Engine.Images;

/// <summary>Run-length coding of bitmaps.</summary>
internal static class BmpRle
{
    /// <summary>Unpacks to one index per byte, rows in stored order, or null when the data ends before the last pixel. Skipped pixels have
    /// index 0, and runs beyond a row's end are dropped up to its end mark, as in Pillow. Two errors of Pillow 9.4 are not copied:
    /// it skips two bytes before a jump's distances, and it loses the last of an odd number of literal 4-bit pixels.</summary>
    public static byte[]? Unpack(ReadOnlySpan<byte> data, int width, int height, bool fourBits)
    {
        byte[] pixels = new byte[(long)width * height];
        long filled = 0, x = 0;
        int at = 0;
        while (filled < pixels.Length)
        {
            if (at + 2 > data.Length) return null;
            int count = data[at], value = data[at + 1];
            at += 2;
            if (count > 0)
            {
                long run = Math.Min(Math.Clamp(width - x, 0, count), pixels.Length - filled);
                for (int i = 0; i < run; i++) pixels[filled++] = fourBits ? (byte)((i & 1) == 0 ? value >> 4 : value & 15) : (byte)value;
                x += run;
            }
            else if (value == 0)
            {
                filled = (filled + width - 1) / width * width;
                x = 0;
            }
            else if (value == 1)
            {
                return null;
            }
            else if (value == 2)
            {
                if (at + 2 > data.Length) return null;
                filled += data[at] + (long)data[at + 1] * width;
                x = filled % width;
                at += 2;
            }
            else
            {
                int bytes = fourBits ? (value + 1) / 2 : value;
                if (at + bytes > data.Length) return null;
                for (int i = 0; i < value && filled < pixels.Length; i++)
                {
                    byte packed = data[at + (fourBits ? i / 2 : i)];
                    pixels[filled++] = fourBits ? (byte)((i & 1) == 0 ? packed >> 4 : packed & 15) : packed;
                }
                x += value;
                // Literal pixels are padded to 16 bits.
                at += (bytes + 1) & ~1;
            }
        }
        return pixels;
    }
}
