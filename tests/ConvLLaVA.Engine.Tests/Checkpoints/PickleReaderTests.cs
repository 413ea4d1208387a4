using ConvLLaVA.Engine.Checkpoints;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

public sealed class PickleReaderTests
{
    [Fact]
    public void Plain_values()
    {
        byte[] pickle = PickleBytes.Start().Op('(').Op('N').Op(0x88).Op(0x89).Int(-5).Int(1L << 40).Op('K', 200).Op('M', 0x34, 0x12).Op(0x8a, 0).Op(0x8a, 1, 0xff)
            .Op('G', 0x3f, 0xf8, 0, 0, 0, 0, 0, 0).Text("h\u00e9").Op('U', 1, (byte)'x').Op(0x8f).Op(']').Op('t').Stop();
        PickleTuple tuple = Assert.IsType<PickleTuple>(PickleReader.Read(pickle, "f"));
        Assert.Equal([null, true, false, -5L, 1L << 40, 200L, 0x1234L, 0L, -1L, 1.5, "h\u00e9", "x"], tuple.Items.Take(12));
        Assert.IsType<PickleSet>(tuple.Items[12]);
        Assert.IsType<PickleList>(tuple.Items[13]);
    }

    [Fact]
    public void Lists_dicts_and_memo()
    {
        byte[] pickle = PickleBytes.Start().Op(']').Op('q', 0).Int(1).Op('a').Op('(').Int(2).Int(3).Op('e').Op('r', 1, 1, 0, 0).Op('0').Stop();
        Refuses(pickle, "opcode 0x30");
        pickle = PickleBytes.Start().Op('}').Text("k").Op(']').Op('q', 0).Int(1).Op('a').Op('s').Op('(').Int(7).Op('h', 0).Op('u').Stop();
        PickleDict dict = Assert.IsType<PickleDict>(PickleReader.Read(pickle, "f"));
        Assert.Equal([1L], Assert.IsType<PickleList>(dict.Items["k"]).Items);
        Assert.Same(dict.Items["k"], dict.Items[7L]);
    }

    [Theory]
    [InlineData("os", "system")]
    [InlineData("builtins", "eval")]
    [InlineData("__builtin__", "exec")]
    [InlineData("posix", "system")]
    [InlineData("torch", "load")]
    [InlineData("torch.serialization", "load")]
    [InlineData("collections", "OrderedDict.fromkeys")]
    [InlineData("subprocess", "Popen")]
    public void A_forbidden_name_is_refused_and_named(string module, string name)
    {
        string canary = Path.Combine(Path.GetTempPath(), "convllava-canary-" + Guid.NewGuid().ToString("N"));
        byte[] pickle = PickleBytes.Start().Global(module, name).Op('(').Text($"touch {canary}").Op('t').Op('R').Stop();
        Refuses(pickle, $"asks for the Python object \"{module}.{name}\"");
        Assert.False(File.Exists(canary));
    }

    [Theory]
    [InlineData((byte)'i', "INST")]
    [InlineData((byte)'o', "OBJ")]
    [InlineData(0x81, "NEWOBJ")]
    [InlineData(0x92, "NEWOBJ_EX")]
    [InlineData(0x93, "STACK_GLOBAL")]
    [InlineData(0x82, "EXT1")]
    [InlineData(0x83, "EXT2")]
    [InlineData(0x84, "EXT4")]
    [InlineData((byte)'P', "PERSID")]
    [InlineData(0x95, "FRAME")]
    [InlineData((byte)'I', "INT")]
    [InlineData((byte)'0', "POP")]
    public void A_forbidden_opcode_is_refused(byte opcode, string name)
    {
        Refuses(PickleBytes.Start().Op(opcode).Stop(), $"uses the opcode 0x{opcode:X2} at byte 2");
        Assert.NotEmpty(name);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(4)]
    public void Another_protocol(byte protocol) => Refuses([0x80, protocol, (byte)'N', (byte)'.'], "does not begin with pickle protocol 2");

    [Theory]
    [InlineData("R")]
    [InlineData("b")]
    [InlineData("a")]
    [InlineData("s")]
    [InlineData("Q")]
    [InlineData("NR")]
    [InlineData("(R")]
    [InlineData("NN(R")]
    [InlineData("\u0087")]
    public void Stack_underflow(string opcodes) => Refuses(Opcodes(opcodes), "takes more objects off the stack");

    [Theory]
    [InlineData("t")]
    [InlineData("]e")]
    [InlineData("}u")]
    public void Missing_mark(string opcodes) => Refuses(Opcodes(opcodes), "up to a mark that it never set");

    [Fact]
    public void Unknown_memo_index() => Refuses(PickleBytes.Start().Op('h', 3).Stop(), "recalls memo index 3");

    [Fact]
    public void Unknown_long_memo_index() => Refuses(PickleBytes.Start().Op('j', 0xff, 0xff, 0xff, 0xff).Stop(), "recalls memo index 4294967295");

    [Fact]
    public void Huge_memo_index() => Refuses(PickleBytes.Start().Op(']').Op('r', 0xff, 0xff, 0xff, 0x7f).Stop(), "stores under memo index 2147483647");

    [Fact]
    public void Marks_without_end() => Refuses(Opcodes(new string('(', 2000)), "is nested too deeply");

    [Fact]
    public void Huge_string() => Refuses(PickleBytes.Start().Op('X', 0xff, 0xff, 0xff, 0x7f).Stop(), "a string of 2147483647 bytes");

    [Fact]
    public void String_beyond_the_end() => Refuses(PickleBytes.Start().Op('X', 100, 0, 0, 0).Stop(), "is truncated");

    [Fact]
    public void String_not_UTF8() => Refuses(PickleBytes.Start().Op('X', 1, 0, 0, 0, 0xff).Stop(), "not valid UTF-8");

    [Fact]
    public void Huge_integer() => Refuses(PickleBytes.Start().Op(0x8a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1).Stop(), "more than 64 bits");

    [Fact]
    public void Name_without_end() => Refuses(PickleBytes.Start().Op((byte)'c', (byte)'o', (byte)'s').Stop(), "a name without an end");

    [Fact]
    public void Items_set_on_a_list() => Refuses(PickleBytes.Start().Op(']').Int(0).Int(1).Op('s').Stop(), "sets items of something that is not a dict, found a list");

    [Fact]
    public void Items_set_on_a_tensor() => Refuses(
        PickleBytes.Start().Tensor("FloatStorage", "0", 1, 0, [1], [1]).Int(0).Int(1).Op('s').Stop(), "not a dict, found a tensor");

    [Fact]
    public void Appended_to_a_dict() => Refuses(PickleBytes.Start().Op('}').Int(0).Op('a').Stop(), "appends to something that is not a list, found a dict");

    [Fact]
    public void Key_that_cannot_be_a_key() => Refuses(PickleBytes.Start().Op('}').Op(']').Int(1).Op('s').Stop(), "neither a string nor an integer");

    [Fact]
    public void Repeated_key() => Refuses(PickleBytes.Start().Op('}').Op('(').Text("k").Int(1).Text("k").Int(2).Op('u').Stop(), "is repeated or neither a string nor an integer: \"k\"");

    [Fact]
    public void Key_without_value() => Refuses(PickleBytes.Start().Op('}').Op('(').Text("k").Op('u').Stop(), "a dict key without a value");

    [Fact]
    public void Call_of_a_value() => Refuses(PickleBytes.Start().Text("f").Op(')').Op('R').Stop(), "calls something that cannot be called: \"f\"");

    [Fact]
    public void Call_of_a_storage_type() => Refuses(PickleBytes.Start().Global("torch", "FloatStorage").Op(')').Op('R').Stop(), "calls torch.FloatStorage with unexpected arguments");

    [Fact]
    public void Tensor_of_wrong_arguments() => Refuses(
        PickleBytes.Start().Global("torch._utils", "_rebuild_tensor_v2").Op(')').Op('R').Stop(), "rebuilds a tensor from unexpected arguments");

    [Fact]
    public void State_that_is_no_dict() => Refuses(PickleBytes.Start().Op('}').Int(1).Op('b').Stop(), "sets the state of an object from something that is not a dict");

    [Fact]
    public void State_of_a_list() => Refuses(PickleBytes.Start().Op(']').Op('}').Op('b').Stop(), "sets the state of a list");

    [Fact]
    public void Persistent_id_of_another_kind() => Refuses(PickleBytes.Start().Text("x").Op('Q').Stop(), "refers to a storage in an unexpected way");

    [Fact]
    public void Storage_key_that_is_a_path() => Refuses(PickleBytes.Start().Storage("FloatStorage", "../x", 1).Stop(), "refers to a storage in an unexpected way");

    [Fact]
    public void Storage_of_negative_size() => Refuses(PickleBytes.Start().Storage("FloatStorage", "0", -1).Stop(), "refers to a storage in an unexpected way");

    [Fact]
    public void Bytes_after_the_end() => Refuses([.. PickleBytes.Start().Op('N').Stop(), 1], "has bytes after its end");

    [Fact]
    public void Two_objects() => Refuses(PickleBytes.Start().Op('N').Op('N').Stop(), "does not leave exactly one object");

    [Fact]
    public void No_end() => Refuses([0x80, 2, (byte)'N'], "is truncated");

    private static byte[] Opcodes(string opcodes) => PickleBytes.Start().Op([.. opcodes.Select(opcode => (byte)opcode)]).Stop();

    private static void Refuses(byte[] pickle, string expected)
    {
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => PickleReader.Read(pickle, "file.bin"));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.StartsWith("file.bin ", error.Message, StringComparison.Ordinal);
    }
}
