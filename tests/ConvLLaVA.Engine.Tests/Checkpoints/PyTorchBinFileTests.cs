using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

/// <summary>Files in tests/fixtures/torch-bin were written by torch.save: element i of the 3 x 4 matrix is i / 4 - 1.</summary>
public sealed class PyTorchBinFileTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Real_file_with_every_type()
    {
        using PyTorchBinFile file = PyTorchBinFile.Open(Fixture("dtypes.bin"));
        float[] matrix = [.. Enumerable.Range(0, 12).Select(i => (i / 4f) - 1)];
        Assert.Equal((DType.Float32, DType.Float16, DType.BFloat16), (file.Tensors["f32"].DType, file.Tensors["f16"].DType, file.Tensors["bf16"].DType));
        foreach (string name in (string[])["f32", "f16", "bf16"])
        {
            Assert.Equal([3L, 4L], file.Tensors[name].Shape);
            Assert.Equal(matrix, TensorConversion.ToFloat32(file.Tensors[name]));
            // In place: torch aligns storages within the file, and the mapping begins on a page.
            Assert.Equal(0, file.Tensors[name].Data % 64);
        }
        Assert.Equal([-7L, -4L, -1L, 2L, 5L], MemoryMarshal.Cast<byte, long>(file.Tensors["i64"].Bytes).ToArray());
        Assert.Equal([0L, 3L], file.Tensors["empty"].Shape);
        Assert.Empty(file.Tensors["scalar"].Shape);
        Assert.Equal([2.5f], TensorConversion.ToFloat32(file.Tensors["scalar"]));
    }

    [Fact]
    public void Real_file_with_shared_and_strided_storage()
    {
        using PyTorchBinFile file = PyTorchBinFile.Open(Fixture("views.bin"));
        static float B(int row, int column) => ((row * 4 + column) / 4f) - 1;
        Assert.Equal([.. from c in Enumerable.Range(0, 4) from r in Enumerable.Range(0, 3) select B(r, c)], TensorConversion.ToFloat32(file.Tensors["transposed"]));
        Assert.Equal([B(1, 1), B(1, 2), B(2, 1), B(2, 2)], TensorConversion.ToFloat32(file.Tensors["window"]));
        Assert.Equal([B(2, 0), B(2, 1), B(2, 2), B(2, 3)], TensorConversion.ToFloat32(file.Tensors["row"]));
        Assert.Equal([B(0, 3), B(1, 3), B(2, 3)], TensorConversion.ToFloat32(file.Tensors["column"]));
        Assert.Equal([4L, 2L, 3L], file.Tensors["permuted"].Shape);
        Assert.Equal([.. from c in Enumerable.Range(0, 4) from a in Enumerable.Range(0, 2) from b in Enumerable.Range(0, 3) select (float)((a * 12) + (b * 4) + c)],
            TensorConversion.ToFloat32(file.Tensors["permuted"]));
        Assert.Equal(file.Tensors["whole"].Data + 32, file.Tensors["row"].Data);
        file.Dispose();
    }

    [Fact]
    public void Real_state_dict_with_metadata()
    {
        using PyTorchBinFile file = PyTorchBinFile.Open(Fixture("state-dict.bin"));
        Assert.Equal([0f, 1f, 2f, 3f, 4f, 5f], TensorConversion.ToFloat32(file.Tensors["weight"]));
        Assert.Equal([10f, 11f], TensorConversion.ToFloat32(file.Tensors["bias"]));
    }

    [Fact]
    public void Real_parameter()
    {
        using PyTorchBinFile file = PyTorchBinFile.Open(Fixture("parameter.bin"));
        Assert.Equal(-1f, TensorConversion.ToFloat32(file.Tensors["p"])[0]);
        Assert.Equal(DType.BFloat16, file.Tensors["p"].DType);
    }

    [Fact]
    public void The_test_builder_makes_valid_files()
    {
        using PyTorchBinFile file = PyTorchBinFile.Open(_folder.Write("x.bin", Valid().Build()));
        Assert.Equal([3f, 4f], TensorConversion.ToFloat32(file.Tensors["w"]));
    }

    [Fact]
    public void Legacy_format() => Refuses([0x80, 2, 0x8a, 10, 0x6c, 0xfc], "the format that PyTorch wrote before version 1.6");

    [Fact]
    public void Something_else() => Refuses("GIF89a...."u8.ToArray(), "does not begin like a ZIP archive");

    [Fact]
    public void Big_endian()
    {
        TorchArchive archive = Valid();
        archive.Entries[1] = ("archive/byteorder", "big"u8.ToArray());
        Refuses(archive, "byte order \"big\", expected \"little\"");
    }

    [Fact]
    public void Unknown_entry()
    {
        TorchArchive archive = Valid();
        archive.Entries.Add(("archive/code/model.py", [1]));
        Refuses(archive, "\"archive/code/model.py\" is nothing that a weight file has");
    }

    [Fact]
    public void Entry_that_climbs_out()
    {
        TorchArchive archive = Valid();
        archive.Entries.Add(("archive/../evil", [1]));
        Refuses(archive, "is nothing that a weight file has");
    }

    [Fact]
    public void Two_top_folders()
    {
        TorchArchive archive = Valid();
        archive.Entries.Add(("other/version", [1]));
        Refuses(archive, "\"other/version\" is not in the one top folder");
    }

    [Fact]
    public void No_pickle()
    {
        TorchArchive archive = Valid();
        archive.Entries.RemoveAt(0);
        Refuses(archive, "has no data.pkl");
    }

    [Fact]
    public void Missing_storage() => Refuses(PickleBytes.One("FloatStorage", "7", 2, 0, [2], [1]), "storage data/7 of the tensor w is not in the archive");

    [Fact]
    public void Storage_of_another_size() => Refuses(PickleBytes.One("FloatStorage", "0", 3, 0, [2], [1]), "has 16 bytes, expected 3 elements of 4 bytes");

    [Fact]
    public void Storage_size_that_overflows() => Refuses(PickleBytes.One("FloatStorage", "0", long.MaxValue, 0, [2], [1]), "expected 9223372036854775807 elements");

    [Fact]
    public void Offset_beyond_the_storage() => Refuses(PickleBytes.One("FloatStorage", "0", 4, 3, [2], [1]), "reaches beyond its storage");

    [Fact]
    public void Stride_beyond_the_storage() => Refuses(PickleBytes.One("FloatStorage", "0", 4, 0, [2, 2], [3, 1]), "reaches beyond its storage");

    [Fact]
    public void Extents_that_overflow() => Refuses(PickleBytes.One("FloatStorage", "0", 4, 0, [1L << 40, 1L << 40], [0, 0]), "reaches beyond its storage");

    [Fact]
    public void Negative_offset() => Refuses(PickleBytes.One("FloatStorage", "0", 4, -1, [2], [1]), "impossible shape");

    [Fact]
    public void Negative_extent() => Refuses(PickleBytes.One("FloatStorage", "0", 4, 0, [-2], [1]), "impossible shape [-2]");

    [Fact]
    public void Negative_stride() => Refuses(PickleBytes.One("FloatStorage", "0", 4, 3, [2], [-1]), "impossible shape [2] with strides [-1]");

    [Fact]
    public void Fewer_strides_than_extents() => Refuses(PickleBytes.One("FloatStorage", "0", 4, 0, [2, 2], [1]), "impossible shape");

    [Fact]
    public void Repeated_elements_cannot_fill_the_memory() =>
        Refuses(PickleBytes.One("FloatStorage", "0", 4, 0, [1L << 30, 2], [0, 1]), "repeats elements of its storage so often");

    [Fact]
    public void Unsupported_type() => Refuses(PickleBytes.One("DoubleStorage", "0", 2, 0, [2], [1]), "the tensor w has the type torch.DoubleStorage");

    [Fact]
    public void Not_a_dict() => Refuses(PickleBytes.Start().Int(3).Stop(), "does not hold a dict of tensors");

    [Fact]
    public void Entry_that_is_no_tensor() => Refuses(PickleBytes.Start().Op('}').Text("epoch").Int(3).Op('s').Stop(), "the entry \"epoch\" that is not a named tensor");

    [Fact]
    public void Double_dispose_is_safe()
    {
        PyTorchBinFile file = PyTorchBinFile.Open(Fixture("views.bin"));
        file.Dispose();
        file.Dispose();
    }

    private static TorchArchive Valid() => TorchArchive.Of(PickleBytes.One("FloatStorage", "0", 4, 2, [2], [1]), Storage());

    private static byte[] Storage() => MemoryMarshal.AsBytes<float>([1f, 2f, 3f, 4f]).ToArray();

    private static string Fixture(string name) => Path.Combine(Repository.Fixtures, "torch-bin", name);

    private void Refuses(TorchArchive archive, string expected) => Refuses(archive.Build(), expected);

    private void Refuses(byte[] bytes, string expected)
    {
        // A pickle goes into an archive with one storage of four floats; anything else is a whole file.
        if (bytes is [0x80, 2, .., (byte)'.']) bytes = TorchArchive.Of(bytes, Storage()).Build();
        string path = _folder.Write("x.bin", bytes);
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => PyTorchBinFile.Open(path));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.Contains(path, error.Message, StringComparison.Ordinal);
    }
}
