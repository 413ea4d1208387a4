using System.Buffers.Binary;

namespace ConvLLaVA.Engine.Text;

/// <summary>Walks the fields of one protobuf message: just the wire format (varint, 32 bit, 64 bit, length-delimited)
/// that a SentencePiece model uses.</summary>
internal ref struct ProtobufReader
{
    private ReadOnlySpan<byte> _rest;

    public ProtobufReader(ReadOnlySpan<byte> message) => _rest = message;

    /// <summary>Number of the field that <see cref="Next"/> found.</summary>
    public int Field { get; private set; }

    /// <summary>Value of a varint or fixed-width field, as raw bits.</summary>
    public ulong Bits { get; private set; }

    /// <summary>Content of a length-delimited field; empty for the others.</summary>
    public ReadOnlySpan<byte> Content { get; private set; }

    private int _wireType;

    /// <summary>The field as a <c>float</c>.</summary>
    public readonly float AsSingle
    {
        get
        {
            Expect(5);
            return BitConverter.UInt32BitsToSingle((uint)Bits);
        }
    }

    /// <summary>The field as a signed 32-bit number or enum.</summary>
    public readonly int AsInt32
    {
        get
        {
            Expect(0);
            return unchecked((int)(long)Bits);
        }
    }

    /// <summary>The field as a truth value.</summary>
    public readonly bool AsBoolean
    {
        get
        {
            Expect(0);
            return Bits != 0;
        }
    }

    /// <summary>The field as nested message, string or bytes.</summary>
    public readonly ReadOnlySpan<byte> AsContent
    {
        get
        {
            Expect(2);
            return Content;
        }
    }

    /// <summary>Moves to the next field; false at the end of the message.</summary>
    /// <exception cref="FormatException">The bytes are not a protobuf message, or end inside a field.</exception>
    public bool Next()
    {
        if (_rest.IsEmpty) return false;
        ulong tag = Varint();
        if (tag >> 3 is 0 or > 0x1FFFFFFF) throw new FormatException("a field number out of range");
        Field = (int)(tag >> 3);
        _wireType = (int)(tag & 7);
        Content = default;
        switch (_wireType)
        {
            case 0:
                Bits = Varint();
                break;
            case 1:
                Bits = BinaryPrimitives.ReadUInt64LittleEndian(Take(8));
                break;
            case 2:
                Content = Take(Varint());
                break;
            case 5:
                Bits = BinaryPrimitives.ReadUInt32LittleEndian(Take(4));
                break;
            default:
                throw new FormatException("a field of unknown wire type " + _wireType);
        }
        return true;
    }

    private readonly void Expect(int wireType)
    {
        if (_wireType != wireType) throw new FormatException($"field {Field} stored with wire type {_wireType} instead of {wireType}");
    }

    private ReadOnlySpan<byte> Take(ulong count)
    {
        if (count > (ulong)_rest.Length) throw new FormatException("an end inside a field");
        ReadOnlySpan<byte> taken = _rest[..(int)count];
        _rest = _rest[(int)count..];
        return taken;
    }

    private ulong Varint()
    {
        ulong value = 0;
        for (int shift = 0; shift < 64; shift += 7)
        {
            byte part = Take(1)[0];
            value |= (ulong)(part & 0x7F) << shift;
            if (part < 0x80) return value;
        }
        throw new FormatException("a number of more than 64 bits");
    }
}
