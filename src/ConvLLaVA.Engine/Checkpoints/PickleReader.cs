using System.Buffers.Binary;
using System.Collections.Immutable;
using System.Globalization;
using System.Text;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Reads the pickle of a <c>torch.save</c> archive into plain descriptions. Only the opcodes and names that
/// such files need are known, everything else is refused, and nothing is ever executed or looked up by name.</summary>
internal ref struct PickleReader
{
    private const int MaxStack = 1_000_000;
    private const int MaxMarks = 1_000;
    private const int MaxMemo = 4_000_000;
    private const int MaxStringBytes = 4096;
    private const int MaxGlobalBytes = 256;

    private readonly ReadOnlySpan<byte> _bytes;
    private readonly string _file;
    private readonly List<object?> _stack = [];
    private readonly List<int> _marks = [];
    private readonly Dictionary<uint, object?> _memo = [];
    private int _position;

    private PickleReader(ReadOnlySpan<byte> bytes, string file)
    {
        _bytes = bytes;
        _file = file;
    }

    /// <summary>Reads one pickle; <paramref name="file"/> names the archive in messages.</summary>
    /// <exception cref="InvalidInputException">The pickle is broken or asks for anything beyond tensors.</exception>
    public static object? Read(ReadOnlySpan<byte> bytes, string file) => new PickleReader(bytes, file).Run();

    private object? Run()
    {
        if (_bytes.Length < 2 || _bytes[0] != 0x80 || _bytes[1] != 2) throw Broken("does not begin with pickle protocol 2");
        _position = 2;
        while (true)
        {
            byte opcode = Byte();
            if (opcode == (byte)'.') break;
            Step(opcode);
            if (_stack.Count > MaxStack) throw Broken("is nested too deeply");
        }
        if (_stack.Count != 1 || _marks.Count != 0) throw Broken("does not leave exactly one object");
        if (_position != _bytes.Length) throw Broken("has bytes after its end");
        return _stack[0];
    }

    private void Step(byte opcode)
    {
        switch (opcode)
        {
            case (byte)'(':
                if (_marks.Count == MaxMarks) throw Broken("is nested too deeply");
                _marks.Add(_stack.Count);
                break;
            case (byte)'N': Push(null); break;
            case 0x88: Push(true); break;
            case 0x89: Push(false); break;
            case (byte)'J': Push((long)BinaryPrimitives.ReadInt32LittleEndian(Take(4))); break;
            case (byte)'K': Push((long)Byte()); break;
            case (byte)'M': Push((long)BinaryPrimitives.ReadUInt16LittleEndian(Take(2))); break;
            case 0x8a: Push(Long(Take(Byte()))); break;
            case (byte)'G': Push(BinaryPrimitives.ReadDoubleBigEndian(Take(8))); break;
            case (byte)'X': Push(Utf8String(BinaryPrimitives.ReadUInt32LittleEndian(Take(4)))); break;
            case (byte)'U': Push(Encoding.Latin1.GetString(Take(Byte()))); break;
            case (byte)')': Push(new PickleTuple([])); break;
            case 0x85: Push(Tuple(1)); break;
            case 0x86: Push(Tuple(2)); break;
            case 0x87: Push(Tuple(3)); break;
            case (byte)'t': Push(new PickleTuple([.. PopMark()])); break;
            case (byte)']': Push(new PickleList()); break;
            case (byte)'}': Push(new PickleDict()); break;
            case 0x8f: Push(new PickleSet()); break;
            case (byte)'a': Append([Pop()]); break;
            case (byte)'e': Append(PopMark()); break;
            case (byte)'s': SetItems(Pop(2)); break;
            case (byte)'u': SetItems(PopMark()); break;
            case (byte)'c': Push(Global()); break;
            case (byte)'R': Reduce(); break;
            case (byte)'b': Build(); break;
            case (byte)'Q': Push(Persistent(Pop())); break;
            case (byte)'q': Put(Byte()); break;
            case (byte)'r': Put(BinaryPrimitives.ReadUInt32LittleEndian(Take(4))); break;
            case (byte)'h': Push(Recall(Byte())); break;
            case (byte)'j': Push(Recall(BinaryPrimitives.ReadUInt32LittleEndian(Take(4)))); break;
            default:
                throw Broken(string.Create(CultureInfo.InvariantCulture, $"uses the opcode 0x{opcode:X2} at byte {_position - 1}, which no weight file needs"));
        }
    }

    private byte Byte() => Take(1)[0];

    private ReadOnlySpan<byte> Take(long count)
    {
        if (count > _bytes.Length - _position) throw Broken("is truncated");
        ReadOnlySpan<byte> taken = _bytes.Slice(_position, (int)count);
        _position += (int)count;
        return taken;
    }

    private readonly void Push(object? value) => _stack.Add(value);

    private readonly object? Pop() => Pop(1)[0];

    private readonly object?[] Pop(int count)
    {
        // Objects below the innermost mark belong to whoever set the mark.
        int floor = _marks.Count > 0 ? _marks[^1] : 0;
        if (_stack.Count - floor < count) throw Broken("takes more objects off the stack than it put there");
        return Cut(_stack.Count - count);
    }

    private readonly object?[] PopMark()
    {
        if (_marks.Count == 0) throw Broken("takes objects up to a mark that it never set");
        int mark = _marks[^1];
        _marks.RemoveAt(_marks.Count - 1);
        return Cut(mark);
    }

    private readonly object?[] Cut(int start)
    {
        object?[] items = [.. _stack[start..]];
        _stack.RemoveRange(start, _stack.Count - start);
        return items;
    }

    private readonly T Top<T>(string what) where T : class
    {
        int floor = _marks.Count > 0 ? _marks[^1] : 0;
        if (_stack.Count == floor) throw Broken("takes more objects off the stack than it put there");
        return _stack[^1] as T ?? throw Broken($"{what}, found {Describe(_stack[^1])}");
    }

    private readonly PickleTuple Tuple(int count) => new([.. Pop(count)]);

    private readonly long Long(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length > 8) throw Broken("holds an integer of more than 64 bits");
        long value = 0;
        for (int i = 0; i < bytes.Length; i++) value |= (long)bytes[i] << (8 * i);
        int unused = 64 - 8 * bytes.Length;
        return bytes.Length == 0 ? 0 : value << unused >> unused;
    }

    private string Utf8String(uint length)
    {
        if (length > MaxStringBytes) throw Broken(string.Create(CultureInfo.InvariantCulture, $"holds a string of {length} bytes, expected at most {MaxStringBytes}"));
        ReadOnlySpan<byte> bytes = Take(length);
        return System.Text.Unicode.Utf8.IsValid(bytes) ? Encoding.UTF8.GetString(bytes) : throw Broken("holds a string that is not valid UTF-8");
    }

    private readonly void Append(object?[] items) => Top<PickleList>("appends to something that is not a list").Items.AddRange(items);

    private readonly void SetItems(object?[] items)
    {
        PickleDict target = Top<PickleDict>("sets items of something that is not a dict");
        if (items.Length % 2 != 0) throw Broken("sets a dict key without a value");
        for (int i = 0; i < items.Length; i += 2)
        {
            if (items[i] is not (string or long) || !target.Items.TryAdd(items[i]!, items[i + 1]))
            {
                throw Broken($"has a dict key that is repeated or neither a string nor an integer: {Describe(items[i])}");
            }
        }
    }

    private readonly void Put(uint index)
    {
        if (index >= MaxMemo) throw Broken(string.Create(CultureInfo.InvariantCulture, $"stores under memo index {index}, expected less than {MaxMemo}"));
        _memo[index] = Top<object>("stores None in the memo");
    }

    private readonly object? Recall(uint index) =>
        _memo.TryGetValue(index, out object? value) ? value : throw Broken(string.Create(CultureInfo.InvariantCulture, $"recalls memo index {index}, which it never stored"));

    private PickleGlobal Global()
    {
        string module = Line();
        string name = Line();
        return PickleGlobals.Find($"{module}.{name}")
            ?? throw Broken($"asks for the Python object \"{module}.{name}\", which no weight file needs (nothing was run)");
    }

    private string Line()
    {
        int length = _bytes[_position..].IndexOf((byte)'\n');
        if (length is < 0 or > MaxGlobalBytes) throw Broken("has a name without an end");
        ReadOnlySpan<byte> line = Take(length);
        Byte();
        foreach (byte value in line)
        {
            if (value is < 0x20 or > 0x7e) throw Broken("has a name that is not plain ASCII");
        }
        return Encoding.ASCII.GetString(line);
    }

    private readonly void Reduce()
    {
        object?[] call = Pop(2);
        if (call[0] is not PickleGlobal global || call[1] is not PickleTuple { Items: var arguments })
        {
            throw Broken($"calls something that cannot be called: {Describe(call[0])}");
        }
        Push(global.Kind switch
        {
            PickleGlobalKind.OrderedDict when arguments.IsEmpty => new PickleDict(),
            PickleGlobalKind.Size when arguments is [PickleTuple size] => size,
            PickleGlobalKind.RebuildParameter when arguments is [PickleTensor tensor, bool, _] => tensor,
            PickleGlobalKind.RebuildTensor => Tensor(arguments),
            _ => throw Broken($"calls {global.Name} with unexpected arguments"),
        });
    }

    /// <summary>State set on an object after its construction (<c>_metadata</c> of a state dict): attributes, which are ignored.</summary>
    private readonly void Build()
    {
        if (Pop() is not PickleDict) throw Broken("sets the state of an object from something that is not a dict");
        if (Top<object>("sets the state of None") is not (PickleDict or PickleTensor)) throw Broken($"sets the state of {Describe(_stack[^1])}");
    }

    private readonly PickleTensor Tensor(ImmutableArray<object?> arguments)
    {
        if (arguments.Length is < 6 or > 7 || arguments[0] is not PickleStorage storage || arguments[1] is not long offset
            || arguments[2] is not PickleTuple { Items: var shape } || arguments[3] is not PickleTuple { Items: var strides } || arguments[4] is not bool
            || !shape.All(item => item is long) || !strides.All(item => item is long))
        {
            throw Broken("rebuilds a tensor from unexpected arguments");
        }
        return new PickleTensor(storage, offset, [.. shape.Cast<long>()], [.. strides.Cast<long>()]);
    }

    private readonly PickleStorage Persistent(object? id)
    {
        if (id is PickleTuple { Items: ["storage", PickleGlobal { Kind: PickleGlobalKind.Storage } type, string key, string, long count] }
            && key.Length is > 0 and <= 20 && key.All(char.IsAsciiDigit) && count >= 0)
        {
            return new PickleStorage(type, key, count);
        }
        throw Broken("refers to a storage in an unexpected way");
    }

    private static string Describe(object? value) => value switch
    {
        null => "None",
        string text => $"\"{(text.Length <= 80 ? text : text[..80])}\"",
        long number => number.ToString(CultureInfo.InvariantCulture),
        bool flag => flag ? "True" : "False",
        double => "a float",
        PickleGlobal global => global.Name,
        PickleTuple => "a tuple",
        PickleList => "a list",
        PickleDict => "a dict",
        PickleSet => "a set",
        PickleStorage => "a storage",
        _ => "a tensor",
    };

    private readonly InvalidInputException Broken(string what) => new($"{_file} is not a usable PyTorch weight file: its pickle {what}.");
}
