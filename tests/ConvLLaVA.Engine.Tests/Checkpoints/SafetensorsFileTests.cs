using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

public sealed class SafetensorsFileTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Reads_tensors_of_every_type_in_place()
    {
        const string Header = """
            {"__metadata__":{"format":"pt"},
            "a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},
            "b":{"dtype":"BF16","shape":[1],"data_offsets":[8,10]},
            "c":{"dtype":"F16","shape":[],"data_offsets":[10,12]},
            "e":{"dtype":"I32","shape":[1],"data_offsets":[20,24]},
            "d":{"dtype":"I64","shape":[1],"data_offsets":[12,20]},
            "f":{"dtype":"U8","shape":[3],"data_offsets":[24,27]},
            "z":{"dtype":"F32","shape":[0,5],"data_offsets":[27,27]}}
            """;
        byte[] data = [.. BitConverter.GetBytes(1.5f), .. BitConverter.GetBytes(-2f), 0x80, 0x3f, 0, 0x3c, .. BitConverter.GetBytes(-7L), .. BitConverter.GetBytes(9), 1, 2, 3];
        using SafetensorsFile file = SafetensorsFile.Open(_folder.Write("x.safetensors", SafetensorsBytes.Raw(Header, data)));
        Assert.Equal(7, file.Tensors.Count);
        Assert.Equal("pt", file.Metadata["format"]);
        Assert.Equal([1.5f, -2f], TensorConversion.ToFloat32(file.Tensors["a"]));
        Assert.Equal([1f], TensorConversion.ToFloat32(file.Tensors["b"]));
        Assert.Equal([1f], TensorConversion.ToFloat32(file.Tensors["c"]));
        Assert.Equal(-7L, MemoryMarshal.Read<long>(file.Tensors["d"].Bytes));
        Assert.Equal(9, MemoryMarshal.Read<int>(file.Tensors["e"].Bytes));
        Assert.Equal(new byte[] { 1, 2, 3 }, file.Tensors["f"].Bytes.ToArray());
        Assert.Equal(0, file.Tensors["z"].ElementCount);
        Assert.Equal(DType.BFloat16, file.Tensors["b"].DType);
        file.Dispose();
    }

    [Fact]
    public void Missing_file() => Refuses(_folder.At("none.safetensors"), "cannot be opened");

    [Fact]
    public void A_folder() => Refuses(_folder.Root, "cannot be opened");

    [Fact]
    public void Empty_file() => Refuses([], "is empty");

    [Fact]
    public void Shorter_than_the_length_field() => Refuses([1, 0, 0], "3 bytes long, expected at least 8");

    [Fact]
    public void Truncated_header() => Refuses([100, 0, 0, 0, 0, 0, 0, 0, (byte)'{'], "is truncated: 9 bytes, expected at least 108");

    [Fact]
    public void Truncated_data() => Refuses(SafetensorsBytes.Of([("a", [4])])[..^1], "places the tensor a at bytes 0 to 16, expected a range within its 15 bytes");

    [Fact]
    public void Huge_header() => Refuses([.. BitConverter.GetBytes(100_000_001L), (byte)'{'], "100000001 bytes, expected at most 100000000");

    [Fact]
    public void Header_length_beyond_63_bits() => Refuses([.. BitConverter.GetBytes(ulong.MaxValue), (byte)'{'], "expected at most 100000000");

    [Fact]
    public void Header_not_an_object() => Refuses("[1]", 0, "does not begin with '{'");

    [Fact]
    public void Header_not_JSON() => Refuses("{\"a\":", 0, "not valid JSON");

    [Fact]
    public void Header_not_UTF8() => Refuses([2, 0, 0, 0, 0, 0, 0, 0, (byte)'{', 0xff], "not valid UTF-8");

    [Fact]
    public void Header_with_half_a_surrogate() => Refuses("""{"\ud800":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}""", 1, "not valid JSON");

    [Fact]
    public void Duplicate_names() => Refuses(
        """{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}""", 2, "not valid JSON: Duplicate property 'a'");

    [Fact]
    public void Overlapping_offsets() => Refuses(
        """{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}""", 3, "tensor b at byte 1, which overlaps");

    [Fact]
    public void Offsets_with_a_hole() => Refuses(
        """{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}""", 3, "tensor b at byte 2, which leaves a hole");

    [Fact]
    public void Hole_at_the_start() => Refuses("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}""", 2, "which leaves a hole");

    [Fact]
    public void Data_beyond_the_last_tensor() => Refuses("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}""", 2, "describes 1 bytes of tensors but holds 2");

    [Fact]
    public void Offsets_out_of_range() => Refuses("""{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}""", 2, "expected a range within its 2 bytes");

    [Fact]
    public void Offsets_backwards() => Refuses("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}}""", 2, "places the tensor a at bytes 2 to 1");

    [Fact]
    public void Negative_offset() => Refuses("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}""", 1, "no valid data_offsets for the tensor a");

    [Fact]
    public void Three_offsets() => Refuses("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}""", 1, "no valid data_offsets");

    [Fact]
    public void Size_does_not_fit_shape_and_type() => Refuses("""{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,23]}}""", 23, "23 bytes, expected 24 for float32 [2, 3]");

    [Fact]
    public void Shape_overflows() => Refuses("""{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}""", 0, "overflows 64 bits");

    [Fact]
    public void Negative_extent() => Refuses("""{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}""", 1, "no valid shape for the tensor a");

    [Fact]
    public void Fractional_extent() => Refuses("""{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}""", 1, "no valid shape");

    [Fact]
    public void Missing_shape() => Refuses("""{"a":{"dtype":"U8","data_offsets":[0,1]}}""", 1, "no valid shape");

    [Fact]
    public void Unknown_type() => Refuses("""{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}""", 8, "dtype \"F64\", expected F32");

    [Fact]
    public void Missing_type() => Refuses("""{"a":{"shape":[1],"data_offsets":[0,8]}}""", 8, "no dtype for the tensor a");

    [Fact]
    public void Entry_not_an_object() => Refuses("""{"a":1}""", 0, "describes \"a\" by something that is not an object");

    [Fact]
    public void Metadata_not_strings() => Refuses("""{"__metadata__":{"a":1}}""", 0, "__metadata__ entry \"a\" that is not a string");

    private void Refuses(string header, int dataBytes, string expected) => Refuses(SafetensorsBytes.Raw(header, dataBytes), expected);

    private void Refuses(byte[] bytes, string expected) => Refuses(_folder.Write("x.safetensors", bytes), expected);

    private static void Refuses(string path, string expected)
    {
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => SafetensorsFile.Open(path));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.Contains(path, error.Message, StringComparison.Ordinal);
    }
}
