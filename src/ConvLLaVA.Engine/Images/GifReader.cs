using System.Buffers.Binary;

namespace ConvLLaVA.Engine.Images;

/// <summary>Reads the first frame of a GIF as Pillow does: the transparent index keeps its palette colour, and fills what the frame does not
/// cover (index 0 when none is declared); a frame that leaves the screen enlarges it.</summary>
internal ref struct GifReader
{
    private readonly ReadOnlySpan<byte> _data;
    private readonly string _name;
    private int _at;

    private GifReader(ReadOnlySpan<byte> data, string name)
    {
        _data = data;
        _name = name;
        _at = 6;
    }

    /// <summary>Decodes.</summary>
    /// <exception cref="InvalidInputException">The file is broken, cut off or over the limits.</exception>
    public static RgbImage Read(ReadOnlySpan<byte> data, string name, ImageLimits limits) => new GifReader(data, name).Decode(limits);

    private RgbImage Decode(ImageLimits limits)
    {
        ReadOnlySpan<byte> screen = Take(7);
        int width = BinaryPrimitives.ReadUInt16LittleEndian(screen), height = BinaryPrimitives.ReadUInt16LittleEndian(screen[2..]);
        byte[] palette = PngReader.GreyRamp();
        if ((screen[4] & 0x80) != 0) Take(6 << (screen[4] & 7)).CopyTo(palette);
        byte background = 0;
        while (true)
        {
            byte kind = Take(1)[0];
            if (kind == (byte)';') throw ImageDecoder.Broken(_name, "GIF", "it has no frame");
            if (kind == (byte)'!')
            {
                byte label = Take(1)[0];
                ReadOnlySpan<byte> block = Block();
                if (label == 0xF9 && block.Length >= 4 && (block[0] & 1) != 0) background = block[3];
                while (!block.IsEmpty) block = Block();
            }
            else if (kind == (byte)',') break;
        }
        ReadOnlySpan<byte> frame = Take(9);
        int left = BinaryPrimitives.ReadUInt16LittleEndian(frame), top = BinaryPrimitives.ReadUInt16LittleEndian(frame[2..]);
        int frameWidth = BinaryPrimitives.ReadUInt16LittleEndian(frame[4..]), frameHeight = BinaryPrimitives.ReadUInt16LittleEndian(frame[6..]);
        width = Math.Max(width, left + frameWidth);
        height = Math.Max(height, top + frameHeight);
        limits.Check(width, height, _name);
        if ((frame[8] & 0x80) != 0)
        {
            palette = PngReader.GreyRamp();
            Take(6 << (frame[8] & 7)).CopyTo(palette);
        }
        byte[] indices = Unpack(frameWidth * frameHeight);
        byte[] pixels = new byte[3 * width * height];
        if (background != 0 || palette.AsSpan(0, 3).ContainsAnyExcept((byte)0))
        {
            for (int i = 0; i < pixels.Length; i += 3) palette.AsSpan(3 * background, 3).CopyTo(pixels.AsSpan(i));
        }
        bool interlaced = (frame[8] & 0x40) != 0;
        for (int row = 0; row < frameHeight; row++)
        {
            int at = 3 * ((top + (interlaced ? Interlaced(row, frameHeight) : row)) * width + left);
            foreach (byte index in indices.AsSpan(row * frameWidth, frameWidth))
            {
                int entry = 3 * index;
                pixels[at] = palette[entry];
                pixels[at + 1] = palette[entry + 1];
                pixels[at + 2] = palette[entry + 2];
                at += 3;
            }
        }
        return new RgbImage(width, height, pixels);
    }

    /// <summary>Where the row that is stored as number <paramref name="row"/> belongs: every 8th from 0, every 8th from 4, every 4th from 2, every 2nd from 1.</summary>
    private static int Interlaced(int row, int height)
    {
        foreach ((int first, int step) in ((int, int)[])[(0, 8), (4, 8), (2, 4), (1, 2)])
        {
            int rows = Math.Max(0, (height - first + step - 1) / step);
            if (row < rows) return first + row * step;
            row -= rows;
        }
        return height - 1;
    }

    private byte[] Unpack(int count)
    {
        int size = Take(1)[0];
        if (size is < 1 or > 8) throw ImageDecoder.Broken(_name, "GIF", $"the code size is {size}");
        using MemoryStream codes = new();
        while (true)
        {
            ReadOnlySpan<byte> block = _at < _data.Length ? BlockOrRest() : [];
            if (block.IsEmpty) break;
            codes.Write(block);
        }
        // A code stands for at most 4096 samples and has at least 2 bits: more is refused before anything is allocated.
        if (count > codes.Length * 4 * 4096) throw ImageDecoder.Truncated(_name, "GIF");
        byte[] indices = new byte[count];
        LzwResult result = GifLzw.Decode(codes.GetBuffer().AsSpan(0, (int)codes.Length), size, indices);
        if (result == LzwResult.Truncated) throw ImageDecoder.Truncated(_name, "GIF");
        if (result == LzwResult.Broken) throw ImageDecoder.Broken(_name, "GIF", "a code is undefined");
        return indices;
    }

    private ReadOnlySpan<byte> Take(int count)
    {
        if (_data.Length - _at < count) throw ImageDecoder.Truncated(_name, "GIF");
        ReadOnlySpan<byte> taken = _data.Slice(_at, count);
        _at += count;
        return taken;
    }

    private ReadOnlySpan<byte> Block() => Take(Take(1)[0]);

    private ReadOnlySpan<byte> BlockOrRest()
    {
        int length = Take(1)[0];
        return Take(Math.Min(length, _data.Length - _at));
    }
}
