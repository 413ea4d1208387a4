using System.Buffers.Binary;
using System.IO.Compression;

namespace ConvLLaVA.Engine.Images;

/// <summary>Reads PNG of every mode as Pillow does: 16-bit colour by its high byte, 16-bit grey clipped at 255, alpha and <c>tRNS</c> dropped,
/// gamma and profiles ignored. An APNG gives its default picture.</summary>
internal static class PngReader
{
    /// <summary>The eight bytes that start every PNG.</summary>
    public static ReadOnlySpan<byte> Signature => [0x89, (byte)'P', (byte)'N', (byte)'G', 0x0D, 0x0A, 0x1A, 0x0A];

    // Deflate cannot expand further than this, so a header that claims more is refused before anything is allocated.
    private const long LargestExpansion = 1032;

    /// <summary>Decodes.</summary>
    /// <exception cref="InvalidInputException">The file is broken, cut off or over the limits.</exception>
    public static RgbImage Read(ReadOnlySpan<byte> data, string name, ImageLimits limits)
    {
        PngHeader header = default;
        byte[] palette = GreyRamp();
        bool seenHeader = false;
        List<(int Start, int Length)> parts = [];
        long compressed = 0;
        int at = Signature.Length;
        while (at + 8 <= data.Length)
        {
            uint declared = BinaryPrimitives.ReadUInt32BigEndian(data[at..]);
            ReadOnlySpan<byte> type = data.Slice(at + 4, 4);
            int start = at + 8;
            bool isData = type.SequenceEqual("IDAT"u8);
            if (!isData && parts.Count > 0) break;
            // The last IDAT may lack its end: what is there decides whether all rows come out.
            int length = (int)Math.Min(declared, (uint)(data.Length - start));
            if (isData)
            {
                parts.Add((start, length));
                compressed += length;
            }
            else
            {
                if (length < declared || start + length + 4 > data.Length) throw ImageDecoder.Truncated(name, "PNG");
                ReadOnlySpan<byte> body = data.Slice(start, length);
                if (BinaryPrimitives.ReadUInt32BigEndian(data[(start + length)..]) != Crc32.Compute(data.Slice(at + 4, length + 4)))
                {
                    throw ImageDecoder.Broken(name, "PNG", "a chunk's checksum is wrong");
                }
                if (type.SequenceEqual("IHDR"u8))
                {
                    header = PngHeader.Parse(body, name);
                    limits.Check(header.Width, header.Height, name);
                    seenHeader = true;
                }
                else if (type.SequenceEqual("PLTE"u8)) body[..Math.Min(768, length)].CopyTo(palette);
                else if (type.SequenceEqual("IEND"u8)) break;
            }
            if (declared > data.Length - start) break;
            at = (int)Math.Min(data.Length, start + (long)declared + 4);
        }
        if (!seenHeader) throw ImageDecoder.Broken(name, "PNG", "the IHDR chunk is missing");
        if (parts.Count == 0 || header.RawBytes() > compressed * LargestExpansion + 1024) throw ImageDecoder.Truncated(name, "PNG");
        byte[] joined = new byte[compressed];
        int filled = 0;
        foreach ((int start, int length) in parts)
        {
            data.Slice(start, length).CopyTo(joined.AsSpan(filled));
            filled += length;
        }
        try
        {
            using ZLibStream stream = new(new MemoryStream(joined), CompressionMode.Decompress);
            return new PngRows(header, palette, stream, name).Decode();
        }
        catch (EndOfStreamException error)
        {
            throw ImageDecoder.Truncated(name, "PNG", error);
        }
        catch (InvalidDataException error)
        {
            throw ImageDecoder.Broken(name, "PNG", "the compressed data is invalid", error);
        }
    }

    /// <summary>Pillow's palette before a file's own entries are written over it: entry i is the grey i.</summary>
    internal static byte[] GreyRamp()
    {
        byte[] palette = new byte[768];
        for (int i = 0; i < palette.Length; i++) palette[i] = (byte)(i / 3);
        return palette;
    }
}
