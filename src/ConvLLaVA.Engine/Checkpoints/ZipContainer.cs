using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Where an uncompressed entry lies in the archive.</summary>
/// <param name="Name">Full name within the archive.</param>
/// <param name="Offset">First byte of its data in the file.</param>
/// <param name="Length">Bytes of data.</param>
internal readonly record struct ZipEntry(string Name, long Offset, long Length);

/// <summary>The directory of a ZIP archive as <c>torch.save</c> writes it, read strictly: entries stored uncompressed, one disk, no
/// encryption, no comment, local and central headers in agreement, no two entries with one name or sharing bytes. Nothing is ever
/// extracted. CRC fields are compared with each other but not with the data: torch itself can be told to leave them out.</summary>
internal sealed class ZipContainer
{
    private const int MaxEntries = 1_000_000;
    private const int MaxNameLength = 1024;
    private const ushort EncryptionFlag = 1, DescriptorFlag = 8, Utf8Flag = 0x800;
    private const uint LocalSignature = 0x04034b50, CentralSignature = 0x02014b50, EndSignature = 0x06054b50,
        End64Signature = 0x06064b50, Locator64Signature = 0x07064b50, DescriptorSignature = 0x08074b50;

    private readonly MappedFile _file;

    private ZipContainer(MappedFile file) => _file = file;

    /// <summary>Reads and checks the directory.</summary>
    /// <exception cref="InvalidInputException">The file is no such archive.</exception>
    public static Dictionary<string, ZipEntry> Read(MappedFile file) => new ZipContainer(file).Read();

    private Dictionary<string, ZipEntry> Read()
    {
        (long start, long size, long count) = ReadEnd();
        if (count is < 1 or > MaxEntries) throw Broken($"has {Text(count)} entries, expected 1 to {Text(MaxEntries)}");
        if (size < count * 46 || size > int.MaxValue) throw Broken($"has a directory of {Text(size)} bytes for {Text(count)} entries");
        ReadOnlySpan<byte> directory = Slice(start, size, "its directory");

        Dictionary<string, ZipEntry> entries = new((int)count);
        List<(long Begin, long End, string Name)> ranges = new((int)count);
        int position = 0;
        for (long i = 0; i < count; i++)
        {
            CentralHeader header = ReadCentral(directory, ref position);
            (ZipEntry entry, long end) = CheckLocal(header);
            if (!entries.TryAdd(entry.Name, entry)) throw Broken($"has two entries named \"{entry.Name}\"");
            ranges.Add((header.LocalOffset, end, entry.Name));
        }
        if (position != directory.Length) throw Broken("has bytes after the last entry of its directory");
        CheckOverlaps(ranges, start);
        return entries;
    }

    private (long Start, long Size, long Count) ReadEnd()
    {
        ReadOnlySpan<byte> end = Slice(_file.Length - 22, 22, "its end record");
        if (U32(end, 0) != EndSignature || U16(end, 20) != 0)
        {
            throw Broken("does not end with a ZIP directory, so it is truncated or carries extra bytes");
        }
        (long count, long size, long start) = (U16(end, 10), U32(end, 12), U32(end, 16));
        if (U16(end, 4) != 0 || U16(end, 6) != 0 || U16(end, 8) != count) throw Broken("spans several disks, expected one");
        long limit = _file.Length - 22;
        if (_file.TrySlice(limit - 20, 20, out ReadOnlySpan<byte> locator) && U32(locator, 0) == Locator64Signature)
        {
            long at = (long)U64(locator, 8);
            if (U32(locator, 4) != 0 || U32(locator, 16) > 1) throw Broken("spans several disks, expected one");
            // Exactly the fixed part: an extensible sector is nothing torch writes.
            ReadOnlySpan<byte> end64 = Slice(at, 56, "its zip64 end record");
            if (U32(end64, 0) != End64Signature || U64(end64, 4) != 44 || at + 56 != limit - 20) throw Broken("has an inconsistent zip64 end record");
            if (U32(end64, 16) != 0 || U32(end64, 20) != 0 || U64(end64, 24) != U64(end64, 32)) throw Broken("spans several disks, expected one");
            (long count64, long size64, long start64) = ((long)U64(end64, 32), (long)U64(end64, 40), (long)U64(end64, 48));
            if ((count != ushort.MaxValue && count != count64) || (size != uint.MaxValue && size != size64) || (start != uint.MaxValue && start != start64))
            {
                throw Broken("has two end records that disagree");
            }
            (count, size, start, limit) = (count64, size64, start64, at);
        }
        if (start < 0 || size < 0 || start > limit || limit - start != size) throw Broken("has a directory that does not lie where its end record says");
        return (start, size, count);
    }

    private CentralHeader ReadCentral(ReadOnlySpan<byte> directory, ref int position)
    {
        if (directory.Length - position < 46 || U32(directory, position) != CentralSignature) throw Broken("has a broken directory entry");
        ReadOnlySpan<byte> fixedPart = directory.Slice(position, 46);
        int nameLength = U16(fixedPart, 28), extraLength = U16(fixedPart, 30), commentLength = U16(fixedPart, 32);
        if (nameLength is 0 or > MaxNameLength || commentLength != 0 || directory.Length - position - 46 < nameLength + extraLength)
        {
            throw Broken("has a broken directory entry");
        }
        string name = Name(directory.Slice(position + 46, nameLength));
        ReadOnlySpan<byte> extra = directory.Slice(position + 46 + nameLength, extraLength);
        position += 46 + nameLength + extraLength;

        ushort flags = U16(fixedPart, 8), method = U16(fixedPart, 10);
        if ((flags & EncryptionFlag) != 0) throw Broken($"holds the encrypted entry \"{name}\", expected a plain one");
        if ((flags & ~(DescriptorFlag | Utf8Flag)) != 0) throw Broken($"holds the entry \"{name}\" with unknown flags");
        if (method != 0) throw Broken($"holds the compressed entry \"{name}\", expected an uncompressed one");
        if (U16(fixedPart, 34) is not 0) throw Broken("spans several disks, expected one");
        ulong packed = U32(fixedPart, 20), length = U32(fixedPart, 24), offset = U32(fixedPart, 42);
        Zip64Fields wide = new(this, name, extra);
        // The order is fixed by the format, and only the fields that overflowed are there.
        if (length == uint.MaxValue) length = wide.Next();
        if (packed == uint.MaxValue) packed = wide.Next();
        if (offset == uint.MaxValue) offset = wide.Next();
        if (packed != length) throw Broken($"gives the entry \"{name}\" two different sizes although it is uncompressed");
        if (length > (ulong)_file.Length || offset > (ulong)_file.Length) throw Broken($"places the entry \"{name}\" outside the file, so it is truncated");
        return new CentralHeader(name, flags, U32(fixedPart, 16), (long)length, (long)offset);
    }

    private (ZipEntry Entry, long End) CheckLocal(CentralHeader central)
    {
        ReadOnlySpan<byte> local = Slice(central.LocalOffset, 30, $"the header of \"{central.Name}\"");
        int nameLength = U16(local, 26), extraLength = U16(local, 28);
        long dataStart = central.LocalOffset + 30 + nameLength + extraLength;
        ReadOnlySpan<byte> variable = Slice(central.LocalOffset + 30, nameLength + extraLength, $"the header of \"{central.Name}\"");
        if (U32(local, 0) != LocalSignature || U16(local, 6) != central.Flags || U16(local, 8) != 0 || nameLength > MaxNameLength
            || Name(variable[..nameLength]) != central.Name)
        {
            throw Broken($"describes the entry \"{central.Name}\" differently in its two headers");
        }
        if (dataStart > _file.Length - central.Length) throw Broken($"is truncated: the entry \"{central.Name}\" lies outside the file");

        ulong packed = U32(local, 18), length = U32(local, 22);
        uint crc = U32(local, 14);
        long end = dataStart + central.Length;
        if ((central.Flags & DescriptorFlag) != 0 && packed == 0 && length == 0)
        {
            end += CheckDescriptor(central, end);
        }
        else
        {
            if (length == uint.MaxValue || packed == uint.MaxValue)
            {
                Zip64Fields wide = new(this, central.Name, variable[nameLength..]);
                if (length == uint.MaxValue) length = wide.Next();
                if (packed == uint.MaxValue) packed = wide.Next();
            }
            if (packed != (ulong)central.Length || length != (ulong)central.Length || crc != central.Crc)
            {
                throw Broken($"gives the entry \"{central.Name}\" different sizes or checksums in its two headers");
            }
        }
        return (new ZipEntry(central.Name, dataStart, central.Length), end);
    }

    /// <summary>Length of the record that follows streamed data. Its sizes have 32 or 64 bits, and nothing says which: torch writes
    /// 64 also for small entries that begin beyond 4 GiB.</summary>
    private int CheckDescriptor(CentralHeader central, long at)
    {
        if (_file.TrySlice(at, 24, out ReadOnlySpan<byte> wide) && U32(wide, 0) == DescriptorSignature && U32(wide, 4) == central.Crc
            && U64(wide, 8) == (ulong)central.Length && U64(wide, 16) == (ulong)central.Length)
        {
            return 24;
        }
        if (_file.TrySlice(at, 16, out ReadOnlySpan<byte> narrow) && U32(narrow, 0) == DescriptorSignature && U32(narrow, 4) == central.Crc
            && U32(narrow, 8) == central.Length && U32(narrow, 12) == central.Length)
        {
            return 16;
        }
        throw Broken($"gives the entry \"{central.Name}\" different sizes or checksums in its directory and after its data");
    }

    private void CheckOverlaps(List<(long Begin, long End, string Name)> ranges, long directoryStart)
    {
        ranges.Sort();
        ranges.Add((directoryStart, directoryStart, "the directory"));
        for (int i = 1; i < ranges.Count; i++)
        {
            if (ranges[i].Begin < ranges[i - 1].End) throw Broken($"has overlapping entries: \"{ranges[i - 1].Name}\" and \"{ranges[i].Name}\"");
        }
    }

    private string Name(ReadOnlySpan<byte> bytes)
    {
        foreach (byte value in bytes)
        {
            if (value is < 0x20 or > 0x7e or (byte)'\\') throw Broken("has an entry whose name is not plain ASCII");
        }
        return Encoding.ASCII.GetString(bytes);
    }

    private ReadOnlySpan<byte> Slice(long offset, long count, string what) =>
        _file.TrySlice(offset, count, out ReadOnlySpan<byte> bytes) ? bytes : throw Broken($"is truncated: {what} lies outside the file");

    private static ushort U16(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt16LittleEndian(bytes[at..]);

    private static uint U32(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[at..]);

    private static ulong U64(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt64LittleEndian(bytes[at..]);

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);

    private InvalidInputException Broken(string what) => new($"{_file.Path} is not a usable PyTorch archive: it {what}.");

    private readonly record struct CentralHeader(string Name, ushort Flags, uint Crc, long Length, long LocalOffset);

    /// <summary>The 64-bit values of extra field 1, one after the other.</summary>
    private ref struct Zip64Fields(ZipContainer zip, string name, ReadOnlySpan<byte> extra)
    {
        private ReadOnlySpan<byte> _rest = Find(extra);

        public ulong Next()
        {
            if (_rest.Length < 8) throw zip.Broken($"lacks the zip64 sizes of the entry \"{name}\"");
            ulong value = U64(_rest, 0);
            _rest = _rest[8..];
            return value;
        }

        private static ReadOnlySpan<byte> Find(ReadOnlySpan<byte> extra)
        {
            while (extra.Length >= 4)
            {
                int length = U16(extra, 2);
                if (length > extra.Length - 4) break;
                if (U16(extra, 0) == 1) return extra.Slice(4, length);
                extra = extra[(4 + length)..];
            }
            return default;
        }
    }
}
