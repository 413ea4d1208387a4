using System.Buffers.Binary;
using System.Numerics;

namespace ConvLLaVA.Engine.Images;

/// <summary>Reads Windows and OS/2 bitmaps as Pillow does: alpha dropped, 5- and 6-bit samples scaled to 8 bits with truncation (Skia rounds),
/// run-length coding included.</summary>
internal static class BmpReader
{
    private const int Raw = 0, Rle8 = 1, Rle4 = 2, BitFields = 3;

    /// <summary>Decodes.</summary>
    /// <exception cref="InvalidInputException">The file is broken, cut off, of an unsupported kind or over the limits.</exception>
    public static RgbImage Read(ReadOnlySpan<byte> data, string name, ImageLimits limits)
    {
        if (data.Length < 26) throw ImageDecoder.Truncated(name, "BMP");
        uint headerSize = U32(data, 14);
        if (headerSize is not (12 or 40 or 52 or 56 or 64 or 108 or 124)) throw ImageDecoder.Broken(name, "BMP", $"the header size is {headerSize}");
        int at = 14 + (int)headerSize;
        if (data.Length < at) throw ImageDecoder.Truncated(name, "BMP");
        bool old = headerSize == 12;
        long width = old ? U16(data, 18) : (int)U32(data, 18), height = old ? U16(data, 20) : (int)U32(data, 22);
        bool topDown = height < 0;
        height = Math.Abs(height);
        limits.Check(width, height, name);
        int bits = old ? U16(data, 24) : U16(data, 28);
        uint compression = old ? Raw : U32(data, 30), declaredColors = old ? 0 : U32(data, 46);
        if (bits is not (1 or 4 or 8 or 16 or 24 or 32)) throw ImageDecoder.Broken(name, "BMP", $"{bits} bits per pixel do not exist");
        bool known = compression == Raw || (compression == BitFields && bits >= 16) || (compression == Rle8 && bits == 8) || (compression == Rle4 && bits == 4);
        if (!known) throw ImageDecoder.Broken(name, "BMP", $"compression {compression} with {bits} bits per pixel is not supported");

        uint red = bits == 16 ? 0x7C00u : 0xFF0000, green = bits == 16 ? 0x3E0u : 0xFF00, blue = bits == 16 ? 0x1Fu : 0xFF;
        if (compression == BitFields)
        {
            int masks = 54;
            if (headerSize < 52) at += 12;
            if (data.Length < masks + 12) throw ImageDecoder.Truncated(name, "BMP");
            uint all = U32(data, masks) | U32(data, masks + 4) | U32(data, masks + 8);
            if (all != 0) (red, green, blue) = (U32(data, masks), U32(data, masks + 4), U32(data, masks + 8));
            if (!IsField(red) || !IsField(green) || !IsField(blue))
            {
                throw ImageDecoder.Broken(name, "BMP", $"the colour masks {red:X8}, {green:X8}, {blue:X8} are not supported");
            }
        }
        byte[] palette = PngReader.GreyRamp();
        long start = U32(data, 10);
        if (bits <= 8)
        {
            long colors = declaredColors != 0 ? declaredColors : 1L << bits;
            int entry = old ? 3 : 4;
            // Some writers give the palette's place as that of the pixels; Pillow looks behind the palette then.
            if (start == 14 + headerSize || start == 0) start = at + entry * colors;
            for (int i = 0; i < Math.Min(colors, 256); i++)
            {
                int from = at + i * entry;
                if (from + 3 > data.Length) throw ImageDecoder.Truncated(name, "BMP");
                (palette[3 * i], palette[3 * i + 1], palette[3 * i + 2]) = (data[from + 2], data[from + 1], data[from]);
            }
        }
        else if (start == 0) start = at;
        if (start > data.Length) throw ImageDecoder.Truncated(name, "BMP");
        ReadOnlySpan<byte> body = data[(int)start..];
        byte[]? unpacked = null;
        if (compression is Rle8 or Rle4)
        {
            unpacked = BmpRle.Unpack(body, (int)width, (int)height, compression == Rle4) ?? throw ImageDecoder.Truncated(name, "BMP");
            body = unpacked;
            bits = 8;
        }
        long rowBytes = (width * bits + 7) / 8, stride = unpacked is null ? (rowBytes + 3) & ~3L : width;
        if (body.Length < stride * (height - 1) + rowBytes) throw ImageDecoder.Truncated(name, "BMP");
        byte[] pixels = GC.AllocateUninitializedArray<byte>((int)(3 * width * height));
        for (int y = 0; y < height; y++)
        {
            ReadOnlySpan<byte> row = body.Slice((int)((topDown ? y : height - 1 - y) * stride), (int)rowBytes);
            Span<byte> target = pixels.AsSpan((int)(3 * width * y), (int)(3 * width));
            if (bits <= 8) Indexed(row, bits, palette, target);
            else Direct(row, bits / 8, red, green, blue, target);
        }
        return new RgbImage((int)width, (int)height, pixels);
    }

    private static void Indexed(ReadOnlySpan<byte> row, int bits, byte[] palette, Span<byte> target)
    {
        int mask = (1 << bits) - 1;
        for (int bit = 0, at = 0; at < target.Length; bit += bits, at += 3)
        {
            int index = (row[bit >> 3] >> (8 - bits - (bit & 7))) & mask;
            palette.AsSpan(3 * index, 3).CopyTo(target[at..]);
        }
    }

    private static void Direct(ReadOnlySpan<byte> row, int bytes, uint red, uint green, uint blue, Span<byte> target)
    {
        for (int from = 0, at = 0; at < target.Length; from += bytes, at += 3)
        {
            uint value = (uint)(row[from] | row[from + 1] << 8);
            if (bytes > 2) value |= (uint)row[from + 2] << 16;
            if (bytes > 3) value |= (uint)row[from + 3] << 24;
            target[at] = Field(value, red);
            target[at + 1] = Field(value, green);
            target[at + 2] = Field(value, blue);
        }
    }

    /// <summary>True for 1 to 8 bits without a gap.</summary>
    private static bool IsField(uint mask) =>
        BitOperations.PopCount(mask) is >= 1 and <= 8 && BitOperations.IsPow2((ulong)(mask >> BitOperations.TrailingZeroCount(mask)) + 1);

    private static byte Field(uint value, uint mask)
    {
        int shift = BitOperations.TrailingZeroCount(mask);
        uint full = mask >> shift;
        return (byte)((value & mask) >> shift is var field && full == 255 ? field : field * 255 / full);
    }

    private static int U16(ReadOnlySpan<byte> data, int at) => BinaryPrimitives.ReadUInt16LittleEndian(data[at..]);

    private static uint U32(ReadOnlySpan<byte> data, int at) => BinaryPrimitives.ReadUInt32LittleEndian(data[at..]);
}
