using System.Text;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

/// <summary>Writes pickles opcode by opcode.</summary>
internal sealed class PickleBytes
{
    private readonly List<byte> _bytes = [0x80, 2];

    public static PickleBytes Start() => new();

    public byte[] Stop() => [.. _bytes, (byte)'.'];

    public PickleBytes Op(params byte[] bytes)
    {
        _bytes.AddRange(bytes);
        return this;
    }

    public PickleBytes Op(char opcode, params byte[] operands) => Op([(byte)opcode, .. operands]);

    public PickleBytes Global(string module, string name) => Op('c').Op(Encoding.ASCII.GetBytes($"{module}\n{name}\n"));

    public PickleBytes Text(string text)
    {
        byte[] utf8 = Encoding.UTF8.GetBytes(text);
        return Op('X').Op(TorchArchive.U32((uint)utf8.Length)).Op(utf8);
    }

    public PickleBytes Int(long value) =>
        value is >= int.MinValue and <= int.MaxValue ? Op('J').Op(BitConverter.GetBytes((int)value)) : Op(0x8a, 8).Op(BitConverter.GetBytes(value));

    public PickleBytes Ints(params long[] values)
    {
        Op('(');
        foreach (long value in values) Int(value);
        return Op('t');
    }

    public PickleBytes EmptyOrderedDict() => Global("collections", "OrderedDict").Op(')').Op('R');

    public PickleBytes Storage(string type, string key, long count) =>
        Op('(').Text("storage").Global("torch", type).Text(key).Text("cpu").Int(count).Op('t').Op('Q');

    public PickleBytes Tensor(string type, string key, long count, long offset, long[] shape, long[] strides) =>
        Global("torch._utils", "_rebuild_tensor_v2").Op('(').Storage(type, key, count).Int(offset).Ints(shape).Ints(strides)
            .Op(0x89).EmptyOrderedDict().Op('t').Op('R');

    /// <summary>A state dict of one tensor named <c>w</c>.</summary>
    public static byte[] One(string type, string key, long count, long offset, long[] shape, long[] strides) =>
        Start().EmptyOrderedDict().Op('(').Text("w").Tensor(type, key, count, offset, shape, strides).Op('u').Stop();
}
