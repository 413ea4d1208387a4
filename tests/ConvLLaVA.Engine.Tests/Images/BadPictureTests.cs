using System.Buffers.Binary;
using System.Text;
using ConvLLaVA.Engine.Images;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Images;

public sealed class BadPictureTests
{
    private static readonly string[] Files =
        [.. Directory.GetFiles(Pictures.Folder).Where(f => !f.EndsWith(".json", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];

    [Fact]
    public void An_empty_file_is_refused() => Refused([], "found 0 bytes");

    [Fact]
    public void Text_named_as_a_picture_is_refused() => Refused("This is no picture."u8.ToArray(), "no known picture format");

    [Theory]
    [InlineData("ycc420.jpg", 2)]
    [InlineData("ycc420.jpg", 200)]
    [InlineData("ycc420-progressive.jpg", 300)]
    [InlineData("cmyk.jpg", 100)]
    [InlineData("rgb8.png", 100)]
    [InlineData("rgb8-adam7.png", 1000)]
    [InlineData("palette8.png", 60)]
    [InlineData("palette.gif", 60)]
    [InlineData("lossy.webp", 30)]
    [InlineData("lossless.webp", 100)]
    [InlineData("rgb.bmp", 10)]
    [InlineData("rle8.bmp", 4)]
    public void A_cut_file_is_refused_as_truncated(string file, int cut)
    {
        byte[] data = File.ReadAllBytes(Path.Combine(Pictures.Folder, file));
        Refused(data[..^cut], "truncated");
    }

    [Fact]
    public void A_missing_end_chunk_is_forgiven_as_in_Pillow()
    {
        byte[] data = File.ReadAllBytes(Path.Combine(Pictures.Folder, "rgb8.png"));
        Assert.Equal(ImageDecoder.Decode(data, "whole").Pixels, ImageDecoder.Decode(data[..^12], "cut").Pixels);
    }

    [Fact]
    public void A_png_header_over_the_pixel_limit_is_refused_before_decoding()
    {
        byte[] data = PngOf(60_000, 60_000);
        Refused(data, "60000x60000", "178956970");
        // Without limits it is the missing data that is refused, before 10 GB are asked for.
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => ImageDecoder.Decode(data, "bomb", new ImageLimits { MaxPixels = 0, MaxSide = 0 }));
        Assert.Contains("60000x60000", error.Message, StringComparison.Ordinal);
        Refused(PngOf(12_000, 12_000), "truncated");
        Refused(PngOf(100_000, 1), "100000x1", "65535");
        Refused(PngOf(0, 5), "0x5");
    }

    [Fact]
    public void An_absurd_gif_is_refused()
    {
        byte[] data = File.ReadAllBytes(Path.Combine(Pictures.Folder, "palette.gif"));
        BinaryPrimitives.WriteUInt16LittleEndian(data.AsSpan(6), 65_000);
        BinaryPrimitives.WriteUInt16LittleEndian(data.AsSpan(8), 65_000);
        Refused(data, "65000x65000");
        Refused([.. "GIF89a"u8, 1, 0, 1, 0, 0, 0, 0, (byte)';'], "no frame");
        Refused([.. "GIF89a"u8, 1, 0], "truncated");
    }

    [Fact]
    public void A_limit_of_ones_own_holds_for_every_format()
    {
        ImageLimits limits = new() { MaxPixels = 100 };
        foreach (string file in Files.Where(f => !Path.GetFileName(f).StartsWith("one.", StringComparison.Ordinal) && !f.Contains("one-adam7") && !f.Contains("rle")))
        {
            InvalidInputException error = Assert.Throws<InvalidInputException>(() => ImageDecoder.Decode(File.ReadAllBytes(file), Path.GetFileName(file), limits));
            Assert.Contains("at most 100 pixels", error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Missing_files_and_folders_are_refused()
    {
        string missing = Path.Combine(Pictures.Folder, "missing.png");
        Assert.Contains("found no such file", Assert.Throws<InvalidInputException>(() => ImageDecoder.DecodeFile(missing)).Message, StringComparison.Ordinal);
        Assert.Contains("found a folder", Assert.Throws<InvalidInputException>(() => ImageDecoder.DecodeFile(Pictures.Folder)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Broken_png_parts_are_named()
    {
        byte[] data = File.ReadAllBytes(Path.Combine(Pictures.Folder, "rgb8.png"));
        byte[] checksum = [.. data];
        checksum[29] ^= 1;
        Refused(checksum, "checksum");
        byte[] stream = [.. data];
        stream[8 + 25 + 8] ^= 0xFF;
        Refused(stream, "compressed data");
        Refused(data[..8], "IHDR");
    }

    [Fact]
    public void Random_damage_gives_a_picture_or_one_clear_refusal()
    {
        byte[][] contents = [.. Files.Select(File.ReadAllBytes)];
        ImageLimits limits = new() { MaxPixels = 1 << 20 };
        int refused = 0;
        Gen<(int File, int[] Flips, int Cut)> damage =
            from file in Gen.Choose(0, contents.Length - 1)
            from count in Gen.Choose(0, 6)
            from flips in Gen.ArrayOf(Gen.Choose(0, 1 << 24), count)
            from cut in Gen.Choose(0, 40)
            select (file, flips, cut);
        Prop.ForAll(damage.ToArbitrary(), d =>
        {
            byte[] data = [.. contents[d.File]];
            foreach (int flip in d.Flips)
            {
                // Half of the flips hit the first bytes, where the headers are.
                int at = (flip & 1) == 0 ? (flip >> 4) % Math.Min(64, data.Length) : (flip >> 4) % data.Length;
                data[at] ^= (byte)(1 << (flip >> 1 & 7));
            }
            if (d.Cut > 30) data = data[..(int)(data.Length * (d.Cut - 30L) / 11)];
            try
            {
                RgbImage image = ImageDecoder.Decode(data, "damaged", limits);
                return image.Pixels.Length == 3 * image.Width * image.Height;
            }
            catch (InvalidInputException error)
            {
                refused++;
                return error.Message.StartsWith("Image 'damaged': ", StringComparison.Ordinal) && error.Message.EndsWith('.') && !error.Message.Contains('\n');
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(4000));
        Assert.InRange(refused, 400, 3600);
    }

    private static void Refused(byte[] data, params string[] words)
    {
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => ImageDecoder.Decode(data, "photo.png"));
        Assert.StartsWith("Image 'photo.png': ", error.Message, StringComparison.Ordinal);
        Assert.Contains("expected", error.Message, StringComparison.Ordinal);
        foreach (string word in words) Assert.Contains(word, error.Message, StringComparison.Ordinal);
    }

    private static byte[] PngOf(int width, int height)
    {
        byte[] header = new byte[17];
        Encoding.ASCII.GetBytes("IHDR", header);
        BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(4), width);
        BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(8), height);
        (header[12], header[13]) = (8, 2);
        byte[] checksum = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(checksum, Crc32.Compute(header));
        return [0x89, .. "PNG\r\n\x1a\n"u8, 0, 0, 0, 13, .. header, .. checksum, 0, 0, 0, 4, .. "IDAT"u8, 0x78, 0x9C, 0, 0];
    }
}
