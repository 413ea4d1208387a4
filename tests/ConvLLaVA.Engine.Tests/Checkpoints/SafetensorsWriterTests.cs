using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

public sealed class SafetensorsWriterTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void What_is_written_reads_back()
    {
        string path = _folder.At("out.safetensors");
        using (SafetensorsWriter writer = new(path))
        {
            writer.AddMetadata("made", "by \"hand\"");
            writer.Add("x \u00e9", [2, 2], [1f, 2f, 3f, 4f]);
            writer.Add("half", [1], [(Half)0.5f]);
            writer.Add("ids", [3], [1L, -200L, 2L]);
            writer.Add("bf", DType.BFloat16, [1], [0x80, 0x3f]);
            writer.Complete();
        }
        using SafetensorsFile file = SafetensorsFile.Open(path);
        Assert.Equal("by \"hand\"", file.Metadata["made"]);
        Assert.Equal([1f, 2f, 3f, 4f], TensorConversion.ToFloat32(file.Tensors["x \u00e9"]));
        Assert.Equal([2L, 2L], file.Tensors["x \u00e9"].Shape);
        Assert.Equal([0.5f], TensorConversion.ToFloat32(file.Tensors["half"]));
        Assert.Equal([1f], TensorConversion.ToFloat32(file.Tensors["bf"]));
        Assert.Equal(-200L, BitConverter.ToInt64(file.Tensors["ids"].Bytes.Slice(8, 8)));
        Assert.Equal(path, Assert.Single(Directory.GetFiles(_folder.Root)));
        Assert.Equal(0, file.Tensors["x \u00e9"].Data % 8);
    }

    [Fact]
    public void An_empty_file_is_valid()
    {
        string path = _folder.At("out.safetensors");
        using (SafetensorsWriter writer = new(path)) writer.Complete();
        using SafetensorsFile file = SafetensorsFile.Open(path);
        Assert.Empty(file.Tensors);
    }

    [Fact]
    public void Without_completion_the_target_stays_as_it_was()
    {
        string path = _folder.Write("out.safetensors", "precious");
        using (SafetensorsWriter writer = new(path))
        {
            writer.Add("a", [1], [1f]);
            Assert.Equal("precious", File.ReadAllText(path));
        }
        Assert.Equal("precious", File.ReadAllText(path));
        Assert.Equal(path, Assert.Single(Directory.GetFiles(_folder.Root)));
    }

    [Fact]
    public void Completion_replaces_the_target_for_readers_that_have_it_open()
    {
        string path = _folder.Write("out.safetensors", SafetensorsBytes.Of([("old", [1])]));
        using SafetensorsFile old = SafetensorsFile.Open(path);
        using (SafetensorsWriter writer = new(path))
        {
            writer.Add("new", [1], [5f]);
            writer.Complete();
        }
        Assert.Equal([0f], TensorConversion.ToFloat32(old.Tensors["old"]));
        using SafetensorsFile fresh = SafetensorsFile.Open(path);
        Assert.Equal(["new"], fresh.Tensors.Keys);
    }

    [Fact]
    public void A_missing_folder_is_one_sentence()
    {
        string path = Path.Combine(_folder.Root, "none", "out.safetensors");
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => new SafetensorsWriter(path));
        Assert.StartsWith($"{path} cannot be written: ", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_folder_as_target_is_one_sentence()
    {
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => new SafetensorsWriter(_folder.Root));
        Assert.Contains("it is a folder, expected a file name", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_repeated_name_is_refused()
    {
        using SafetensorsWriter writer = new(_folder.At("out.safetensors"));
        writer.Add("a", [1], [1f]);
        Assert.Throws<ArgumentException>(() => writer.Add("a", [1], [1f]));
        Assert.Throws<ArgumentException>(() => writer.Add("__metadata__", [1], [1f]));
    }

    [Fact]
    public void Data_must_fill_the_shape()
    {
        using SafetensorsWriter writer = new(_folder.At("out.safetensors"));
        Assert.Throws<ArgumentException>(() => writer.Add("a", [2, 2], [1f, 2f, 3f]));
    }
}
