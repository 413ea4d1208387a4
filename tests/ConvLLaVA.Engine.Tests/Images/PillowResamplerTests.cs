using ConvLLaVA.Engine.Images;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Images;

public sealed class PillowResamplerTests
{
    private static readonly ResamplePath[] Paths =
        [.. new[] { ResamplePath.Scalar, ResamplePath.Vector128, ResamplePath.Avx2, ResamplePath.Avx512 }.Where(PillowResampler.IsSupported)];

    [Theory]
    [InlineData(1, 1, 33, 17)]
    [InlineData(1, 1, 768, 768)]
    [InlineData(3, 2, 1, 1)]
    [InlineData(100, 80, 100, 41)]
    [InlineData(100, 80, 41, 80)]
    [InlineData(64, 64, 64, 64)]
    [InlineData(1, 2000, 20, 20)]
    [InlineData(2000, 1, 20, 20)]
    [InlineData(500, 333, 96, 64)]
    [InlineData(97, 61, 301, 203)]
    public void Every_path_gives_the_bytes_of_the_plain_reference(int width, int height, int newWidth, int newHeight)
    {
        RgbImage image = Pictures.Random(width, height, 1);
        byte[] expected = ReferenceResampler.Resize(image, newWidth, newHeight).Pixels;
        foreach (ResamplePath path in Paths)
        {
            foreach (int threads in new[] { 1, 3 })
            {
                RgbImage actual = PillowResampler.Resample(ResampleSource.Whole(image), ResampleWindow.Whole(newWidth, newHeight), threads, path);
                Assert.Equal((newWidth, newHeight), (actual.Width, actual.Height));
                Assert.True(expected.AsSpan().SequenceEqual(actual.Pixels), $"{path}, {threads} threads");
            }
        }
    }

    [Fact]
    public void Random_sizes_and_windows_give_the_bytes_of_the_plain_reference()
    {
        Gen<int[]> sizes = Gen.ArrayOf(Gen.Choose(1, 90), 4);
        Prop.ForAll(sizes.ToArbitrary(), size =>
        {
            RgbImage image = Pictures.Random(size[0], size[1], size[0] * 97 + size[1]);
            RgbImage padded = ReferenceResampler.PadToSquare(image, 122, 116, 104);
            int side = padded.Width;
            byte[] whole = ReferenceResampler.Resize(padded, size[2], size[3]).Pixels;
            ResampleSource source = new(image, side, side, (side - image.Width) / 2, (side - image.Height) / 2, 122, 116, 104);
            int x = size[2] / 3, y = size[3] / 3, width = size[2] - x, height = size[3] - y;
            byte[] cut = new byte[3 * width * height];
            for (int row = 0; row < height; row++)
            {
                whole.AsSpan(3 * ((y + row) * size[2] + x), 3 * width).CopyTo(cut.AsSpan(3 * row * width));
            }
            return Paths.All(path =>
                whole.AsSpan().SequenceEqual(PillowResampler.Resample(source, ResampleWindow.Whole(size[2], size[3]), 2, path).Pixels)
                && cut.AsSpan().SequenceEqual(PillowResampler.Resample(source, new ResampleWindow(size[2], size[3], x, y, width, height), 1, path).Pixels));
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void Extremes_of_contrast_clip_alike_on_every_path()
    {
        // Black and white columns and rows drive the overshoot below 0 and above 255.
        byte[] pixels = new byte[3 * 40 * 40];
        for (int i = 0; i < pixels.Length; i++) pixels[i] = (byte)((i / 3 % 40 / 10 % 2 ^ i / 120 / 10 % 2) * 255);
        RgbImage image = new(40, 40, pixels);
        foreach (int size in new[] { 13, 39, 41, 333 })
        {
            byte[] expected = ReferenceResampler.Resize(image, size, size).Pixels;
            Assert.Contains((byte)0, expected);
            Assert.Contains((byte)255, expected);
            foreach (ResamplePath path in Paths)
            {
                Assert.True(expected.AsSpan().SequenceEqual(PillowResampler.Resample(ResampleSource.Whole(image), ResampleWindow.Whole(size, size), 1, path).Pixels), $"{path} {size}");
            }
        }
    }

    [Fact]
    public void A_picture_of_the_right_size_is_returned_as_it_is()
    {
        RgbImage image = Pictures.Random(5, 4, 3);
        Assert.Same(image, PillowResampler.ResizeBicubic(image, 5, 4));
    }

    [Fact]
    public void Impossible_sizes_are_refused()
    {
        RgbImage image = Pictures.Random(5, 4, 3);
        Assert.Throws<ArgumentOutOfRangeException>(() => PillowResampler.ResizeBicubic(image, 0, 4));
        Assert.Throws<ArgumentOutOfRangeException>(() => PillowResampler.ResizeBicubic(image, 4, -1));
        Assert.Throws<InvalidInputException>(() => PillowResampler.ResizeBicubic(image, 60_000, 60_000));
    }
}
