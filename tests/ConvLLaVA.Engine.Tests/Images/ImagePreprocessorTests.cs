using System.Runtime.InteropServices;
using System.Text.Json;
using ConvLLaVA.Engine.Images;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Images;

public sealed class ImagePreprocessorTests
{
    private static readonly JsonElement Golden =
        JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Pictures.Folder, "golden-preprocess.json"))).RootElement;

    public static TheoryData<int, int, int> Cases()
    {
        TheoryData<int, int, int> cases = [];
        foreach (JsonElement c in Golden.GetProperty("cases").EnumerateArray())
        {
            cases.Add(c.GetProperty("w").GetInt32(), c.GetProperty("h").GetInt32(), c.GetProperty("target").GetInt32());
        }
        return cases;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Padded_and_resized_bytes_are_those_of_the_golden_vectors(int width, int height, int target)
    {
        JsonElement expected = Golden.GetProperty("cases").EnumerateArray().Single(c =>
            (c.GetProperty("w").GetInt32(), c.GetProperty("h").GetInt32(), c.GetProperty("target").GetInt32()) == (width, height, target));
        RgbImage image = Pictures.Golden(width, height);
        Assert.Equal(expected.GetProperty("src_sha256").GetString(), Pictures.Sha256(image.Pixels));
        ImagePreprocessor preprocessor = new(new PreprocessOptions { CropSize = target });
        Assert.Equal((122, 116, 104), preprocessor.PadColor);
        RgbImage tile = Assert.Single(preprocessor.Prepare(image).Tiles);
        Assert.Equal((target, target), (tile.Width, tile.Height));
        Assert.Equal(expected.GetProperty("out_sum").GetInt64(), tile.Pixels.Sum(p => (long)p));
        Assert.Equal(expected.GetProperty("out_sha256_rgb_hwc").GetString(), Pictures.Sha256(tile.Pixels));
    }

    [Fact]
    public void Normalization_table_is_that_of_the_golden_vectors()
    {
        NormalizationTable table = new(new PreprocessOptions { CropSize = 768 });
        JsonElement expected = Golden.GetProperty("normalize_lut");
        Assert.Equal(expected.GetProperty("sha256_f32_le_[3][256]").GetString(), Pictures.Sha256(MemoryMarshal.AsBytes(table.Values)));
        Half[] halves = [.. table.Values.ToArray().Select(v => (Half)v)];
        Assert.Equal(expected.GetProperty("sha256_f16_le_[3][256]").GetString(), Pictures.Sha256(MemoryMarshal.AsBytes<Half>(halves)));
        int[] samples = [0, 1, 2, 127, 128, 255];
        string[] bits = [.. expected.GetProperty("c0_v0_1_2_127_128_255_hexbits").EnumerateArray().Select(e => e.GetString()!)];
        Assert.Equal(bits, samples.Select(v => $"0x{BitConverter.SingleToUInt32Bits(table.Values[v]):x8}"));
    }

    [Fact]
    public void Fill_puts_each_channel_in_its_plane()
    {
        NormalizationTable table = new(new PreprocessOptions { CropSize = 2 });
        byte[] pixels = [1, 2, 3, 40, 50, 60];
        float[] chw = new float[6];
        table.Fill(pixels, chw);
        ReadOnlySpan<float> values = table.Values;
        Assert.Equal([values[1], values[40], values[256 + 2], values[256 + 50], values[512 + 3], values[512 + 60]], chw);
        Assert.Throws<ArgumentException>(() => table.Fill(pixels, new float[5]));
    }

    [Fact]
    public void Switched_off_steps_are_left_out_of_the_table()
    {
        PreprocessOptions options = new() { CropSize = 8 };
        Assert.Equal(200f, new NormalizationTable(options with { DoRescale = false, DoNormalize = false }).Values[200]);
        Assert.Equal((float)(200 * 0.00392156862745098), new NormalizationTable(options with { DoNormalize = false }).Values[200]);
        Assert.Equal((200f - 0.48145466f) / 0.26862954f, new NormalizationTable(options with { DoRescale = false }).Values[200]);
    }

    [Theory]
    [InlineData(100, 60)]
    [InlineData(60, 101)]
    [InlineData(48, 48)]
    [InlineData(20, 10)]
    public void Default_mode_resizes_the_shortest_edge_and_crops_the_centre(int width, int height)
    {
        const int Size = 48;
        RgbImage image = Pictures.Random(width, height, 7);
        int shorter = Math.Min(width, height), longer = Size * Math.Max(width, height) / shorter;
        RgbImage resized = ReferenceResampler.Resize(image, width <= height ? Size : longer, width <= height ? longer : Size);
        int left = (resized.Width - Size) / 2, top = (resized.Height - Size) / 2;
        RgbImage tile = new ImagePreprocessor(new PreprocessOptions { CropSize = Size, Aspect = AspectMode.Default }).Prepare(image).Tiles[0];
        for (int y = 0; y < Size; y++)
        {
            Assert.Equal(resized.Pixels.AsSpan(3 * ((top + y) * resized.Width + left), 3 * Size), tile.Pixels.AsSpan(3 * y * Size, 3 * Size));
        }
    }

    [Fact]
    public void A_crop_larger_than_the_picture_lies_on_zeros()
    {
        // transformers' center_crop: 5 rows in 8 start at ceil(3/2) = 2; 9 columns are cut from floor(1/2) = 0.
        RgbImage image = Pictures.Random(9, 5, 11);
        RgbImage tile = new ImagePreprocessor(new PreprocessOptions { CropSize = 8, Aspect = AspectMode.Default, DoResize = false }).Prepare(image).Tiles[0];
        for (int y = 0; y < 8; y++)
        {
            byte[] expected = y is < 2 or > 6 ? new byte[24] : image.Pixels.AsSpan(3 * (y - 2) * 9, 24).ToArray();
            Assert.Equal(expected, tile.Pixels.AsSpan(24 * y, 24).ToArray());
        }
    }

    [Fact]
    public void Anyres_gives_the_whole_picture_and_the_tiles_of_the_best_grid()
    {
        // 60x30 fits 2x1 tiles of 16 best: scale 32/60 gives 32x16, nothing wasted.
        RgbImage image = Pictures.Random(60, 30, 5);
        PreprocessOptions options = new() { CropSize = 16, Aspect = AspectMode.AnyRes, GridPinpoints = [(16, 32), (32, 16), (32, 32)] };
        PreparedImage prepared = new ImagePreprocessor(options).Prepare(image);
        Assert.Equal((2, 1, 3), (prepared.GridColumns, prepared.GridRows, prepared.Tiles.Count));
        Assert.Equal(ReferenceResampler.Resize(image, 16, 16).Pixels, prepared.Tiles[0].Pixels);
        RgbImage fitted = ReferenceResampler.Resize(image, 32, 16);
        for (int tile = 0; tile < 2; tile++)
        {
            for (int y = 0; y < 16; y++)
            {
                Assert.Equal(fitted.Pixels.AsSpan(3 * (y * 32 + 16 * tile), 48), prepared.Tiles[1 + tile].Pixels.AsSpan(48 * y, 48));
            }
        }
    }

    [Fact]
    public void Anyres_centres_the_picture_on_black()
    {
        // 20x20 in a 32x16 grid: 16x16, eight black columns on either side.
        RgbImage image = new(20, 20, [.. Enumerable.Repeat((byte)200, 1200)]);
        PreprocessOptions options = new() { CropSize = 16, Aspect = AspectMode.AnyRes, GridPinpoints = [(32, 16)] };
        IReadOnlyList<RgbImage> tiles = new ImagePreprocessor(options).Prepare(image).Tiles;
        byte[] black = new byte[24], grey = [.. Enumerable.Repeat((byte)200, 24)];
        Assert.Equal([.. black, .. grey], tiles[1].Pixels[..48]);
        Assert.Equal([.. grey, .. black], tiles[2].Pixels[..48]);
    }

    [Theory]
    [InlineData(336, 672, 336, 672)]
    [InlineData(1, 20000, 336, 672)]
    [InlineData(1000, 1000, 672, 672)]
    [InlineData(2000, 500, 1008, 336)]
    public void The_best_grid_keeps_most_pixels_and_wastes_least(int width, int height, int gridWidth, int gridHeight)
    {
        Assert.Equal((gridWidth, gridHeight), AnyResGrid.SelectBest(width, height, [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]));
    }

    [Fact]
    public void Strips_are_prepared_without_building_their_square()
    {
        RgbImage strip = new(1, 20_000, [.. Enumerable.Repeat((byte)255, 60_000)]);
        ImagePreprocessor preprocessor = new(new PreprocessOptions { CropSize = 64 });
        RgbImage tile = preprocessor.Prepare(strip).Tiles[0];
        Assert.Equal([122, 116, 104], tile.Pixels[..3]);
        RgbImage cropped = new ImagePreprocessor(new PreprocessOptions { CropSize = 64, Aspect = AspectMode.Default }).Prepare(strip).Tiles[0];
        Assert.All(cropped.Pixels, sample => Assert.Equal(255, sample));
    }

    [Fact]
    public void Useless_settings_are_refused()
    {
        PreprocessOptions good = new() { CropSize = 16 };
        PreprocessOptions[] bad =
        [
            good with { CropSize = 0 }, good with { ShortestEdge = 0 }, good with { Mean = [0.5, 0.5] }, good with { Std = [0.5, 0, 0.5] },
            good with { Mean = [0.5, double.NaN, 0.5] }, good with { RescaleFactor = double.PositiveInfinity },
            good with { Aspect = AspectMode.AnyRes }, good with { Aspect = AspectMode.AnyRes, GridPinpoints = [(0, 5)] },
        ];
        foreach (PreprocessOptions options in bad)
        {
            Assert.Contains("expected", Assert.Throws<InvalidInputException>(() => new ImagePreprocessor(options)).Message, StringComparison.Ordinal);
        }
        PreprocessOptions uncropped = good with { Aspect = AspectMode.Default, DoCenterCrop = false };
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => new ImagePreprocessor(uncropped).Prepare(Pictures.Random(40, 20, 1), "wide.png"));
        Assert.Contains("wide.png", error.Message, StringComparison.Ordinal);
        Assert.Contains("32x16", error.Message, StringComparison.Ordinal);
    }
}
