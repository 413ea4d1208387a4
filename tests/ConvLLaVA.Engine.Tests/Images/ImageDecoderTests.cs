using System.Text.Json;
using ConvLLaVA.Engine.Images;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Images;

/// <summary>Every fixture must decode to the bytes that PIL gives for it (<c>tools/pytorch/make_image_fixtures.py</c>).</summary>
public sealed class ImageDecoderTests
{
    private static readonly Dictionary<string, JsonElement> Expected =
        JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Pictures.Folder, "expected.json"))).RootElement
            .GetProperty("files").EnumerateArray().ToDictionary(e => e.GetProperty("file").GetString()!);

    public static TheoryData<string> Files() => [.. Expected.Keys];

    public static TheoryData<string> Resized() => [.. Expected.Where(e => e.Value.TryGetProperty("padded_768_sha256", out _)).Select(e => e.Key)];

    [Theory]
    [MemberData(nameof(Files))]
    public void Decoded_bytes_are_those_of_PIL(string file)
    {
        RgbImage image = ImageDecoder.DecodeFile(Path.Combine(Pictures.Folder, file));
        JsonElement expected = Expected[file];
        Assert.Equal((expected.GetProperty("width").GetInt32(), expected.GetProperty("height").GetInt32()), (image.Width, image.Height));
        Assert.Equal(expected.GetProperty("sha256").GetString(), Pictures.Sha256(image.Pixels));
    }

    [Theory]
    [MemberData(nameof(Resized))]
    public void Decoded_padded_and_resized_bytes_are_those_of_PIL(string file)
    {
        RgbImage image = ImageDecoder.DecodeFile(Path.Combine(Pictures.Folder, file));
        RgbImage tile = new ImagePreprocessor(new PreprocessOptions { CropSize = 768 }).Prepare(image).Tiles[0];
        Assert.Equal(Expected[file].GetProperty("padded_768_sha256").GetString(), Pictures.Sha256(tile.Pixels));
    }

    [Fact]
    public void The_list_covers_every_picture_in_the_folder()
    {
        IEnumerable<string> files = Directory.GetFiles(Pictures.Folder).Select(f => Path.GetFileName(f)).Where(f => !f.EndsWith(".json", StringComparison.Ordinal));
        Assert.Equal(files.Order(StringComparer.Ordinal), Expected.Keys.Order(StringComparer.Ordinal));
        Assert.True(Resized().Count >= 5);
    }

    [Fact]
    public void The_content_decides_and_not_the_name()
    {
        byte[] data = File.ReadAllBytes(Path.Combine(Pictures.Folder, "ycc420.jpg"));
        Assert.Equal(Expected["ycc420.jpg"].GetProperty("sha256").GetString(), Pictures.Sha256(ImageDecoder.Decode(data, "picture.png").Pixels));
    }
}
