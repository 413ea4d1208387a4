using System.Buffers.Binary;
using System.Text;

namespace ConvLLaVA.Peers;

/// <summary>A protobuf message under construction: fields by their numbers, in the order in which they are added.</summary>
internal sealed class OnnxMessage
{
    private readonly MemoryStream _bytes = new();

    /// <summary>What has been added so far.</summary>
    public ReadOnlySpan<byte> Span => _bytes.GetBuffer().AsSpan(0, (int)_bytes.Length);

    /// <summary>Adds a whole number that is not negative.</summary>
    public OnnxMessage Number(int field, long value)
    {
        Variable(field << 3);
        Variable(value);
        return this;
    }

    /// <summary>Adds a number of 32 bits.</summary>
    public OnnxMessage Single(int field, float value)
    {
        Variable((field << 3) | 5);
        Span<byte> bytes = stackalloc byte[sizeof(float)];
        BinaryPrimitives.WriteSingleLittleEndian(bytes, value);
        _bytes.Write(bytes);
        return this;
    }

    /// <summary>Adds bytes.</summary>
    public OnnxMessage Bytes(int field, ReadOnlySpan<byte> bytes)
    {
        Variable((field << 3) | 2);
        Variable(bytes.Length);
        _bytes.Write(bytes);
        return this;
    }

    /// <summary>Adds text.</summary>
    public OnnxMessage Text(int field, string text) => Bytes(field, Encoding.UTF8.GetBytes(text));

    /// <summary>Adds a message.</summary>
    public OnnxMessage Message(int field, OnnxMessage message) => Bytes(field, message.Span);

    private void Variable(long value)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(value);
        for (; value >= 0x80; value >>= 7) _bytes.WriteByte((byte)(value | 0x80));
        _bytes.WriteByte((byte)value);
    }
}
