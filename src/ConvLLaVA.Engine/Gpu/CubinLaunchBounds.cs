using System.Buffers.Binary;
using System.Text;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Reads the most threads that a kernel's block may have from machine code: the attribute that <c>__launch_bounds__</c> leaves in the ELF
/// section <c>.nv.info.NAME</c>.</summary>
internal static class CubinLaunchBounds
{
    private const string Prefix = ".nv.info.";
    private const byte ValueWithSize = 4; // format of a record: two bytes of length, then that much
    private const byte MaxThreads = 0x05;

    /// <summary>Most threads by entry point; entries without the attribute are left out, as is everything in what is not a 64-bit ELF file.</summary>
    public static IReadOnlyDictionary<string, int> Read(ReadOnlySpan<byte> cubin)
    {
        Dictionary<string, int> found = [];
        if (cubin.Length < 64 || !cubin[..5].SequenceEqual("\x7f\x45\x4c\x46\x02"u8)) return found;
        long table = BinaryPrimitives.ReadInt64LittleEndian(cubin[40..]);
        int size = BinaryPrimitives.ReadUInt16LittleEndian(cubin[58..]), count = BinaryPrimitives.ReadUInt16LittleEndian(cubin[60..]), names = BinaryPrimitives.ReadUInt16LittleEndian(cubin[62..]);
        if (table <= 0 || size < 64 || table > cubin.Length - ((long)size * count) || names >= count) return found;
        ReadOnlySpan<byte> strings = Section(cubin, (int)table + (names * size), out _);
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> section = Section(cubin, (int)table + (i * size), out int nameAt);
            if ((uint)nameAt >= (uint)strings.Length) continue;
            int end = strings[nameAt..].IndexOf((byte)0);
            string name = Encoding.ASCII.GetString(end < 0 ? [] : strings.Slice(nameAt, end));
            if (name.StartsWith(Prefix, StringComparison.Ordinal) && Attribute(section) is { } threads) found[name[Prefix.Length..]] = threads;
        }
        return found;
    }

    private static ReadOnlySpan<byte> Section(ReadOnlySpan<byte> file, int header, out int name)
    {
        name = BinaryPrimitives.ReadInt32LittleEndian(file[header..]);
        int type = BinaryPrimitives.ReadInt32LittleEndian(file[(header + 4)..]);
        long offset = BinaryPrimitives.ReadInt64LittleEndian(file[(header + 24)..]), length = BinaryPrimitives.ReadInt64LittleEndian(file[(header + 32)..]);
        const int NoBits = 8;
        return type == NoBits || offset < 0 || length < 0 || length > file.Length || offset > file.Length - length ? [] : file.Slice((int)offset, (int)length);
    }

    private static int? Attribute(ReadOnlySpan<byte> records)
    {
        while (records.Length >= 4)
        {
            int length = records[0] == ValueWithSize ? BinaryPrimitives.ReadUInt16LittleEndian(records[2..]) : 0;
            if (records.Length < 4 + length) return null;
            if (records[0] == ValueWithSize && records[1] == MaxThreads && length >= 12)
            {
                ReadOnlySpan<byte> value = records[4..];
                return BinaryPrimitives.ReadInt32LittleEndian(value) * BinaryPrimitives.ReadInt32LittleEndian(value[4..]) * BinaryPrimitives.ReadInt32LittleEndian(value[8..]);
            }
            records = records[(4 + length)..];
        }
        return null;
    }
}
