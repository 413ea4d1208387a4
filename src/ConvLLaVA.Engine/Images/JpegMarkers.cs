using System.Buffers.Binary;

namespace ConvLLaVA.Engine.Images;

/// <summary>What a walk over a JPEG's markers tells before anything is decoded.</summary>
/// <param name="Width">Columns from the frame header.</param>
/// <param name="Height">Rows from the frame header.</param>
/// <param name="IsComplete">True when a scan is followed by the end marker.</param>
internal readonly record struct JpegMarkers(int Width, int Height, bool IsComplete)
{
    private const byte StartOfScan = 0xDA;
    private const byte EndOfImage = 0xD9;

    /// <summary>Walks the markers.</summary>
    /// <exception cref="InvalidInputException">No frame header comes before the file ends or stops making sense.</exception>
    public static JpegMarkers Read(ReadOnlySpan<byte> data, string name)
    {
        int width = -1, height = -1, at = 2;
        bool scanned = false;
        while (true)
        {
            // Anything up to the next marker is skipped, as libjpeg does: entropy-coded data (where FF is followed by 00), fill bytes, garbage.
            while (at + 1 < data.Length && (data[at] != 0xFF || data[at + 1] is 0x00 or 0xFF)) at++;
            if (at + 1 >= data.Length) break;
            byte marker = data[at + 1];
            at += 2;
            if (marker == EndOfImage)
            {
                if (width >= 0 && scanned) return new JpegMarkers(width, height, true);
                throw ImageDecoder.Broken(name, "JPEG", "it ends before any picture");
            }
            // Restart markers, TEM and a repeated start have no length.
            if (marker is 0x01 or (>= 0xD0 and <= 0xD8)) continue;
            if (at + 2 > data.Length) break;
            int length = BinaryPrimitives.ReadUInt16BigEndian(data[at..]);
            if (length < 2) throw ImageDecoder.Broken(name, "JPEG", $"marker {marker:X2} has length {length}");
            bool frame = marker is >= 0xC0 and <= 0xCF and not (0xC4 or 0xC8 or 0xCC);
            if (frame && at + 7 <= data.Length)
            {
                height = BinaryPrimitives.ReadUInt16BigEndian(data[(at + 3)..]);
                width = BinaryPrimitives.ReadUInt16BigEndian(data[(at + 5)..]);
            }
            scanned |= marker == StartOfScan;
            at += length;
        }
        if (width < 0) throw ImageDecoder.Truncated(name, "JPEG");
        return new JpegMarkers(width, height, false);
    }
}
