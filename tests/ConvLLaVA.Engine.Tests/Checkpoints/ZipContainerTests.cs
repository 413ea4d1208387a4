using System.Buffers.Binary;
using ConvLLaVA.Engine.Checkpoints;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

public sealed class ZipContainerTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Reads_a_directory()
    {
        using MappedFile file = MappedFile.Open(_folder.Write("x.bin", Archive().Build()));
        Dictionary<string, ZipEntry> entries = ZipContainer.Read(file);
        Assert.Equal(["a/data.pkl", "a/data/0", "a/empty"], entries.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(5, entries["a/data/0"].Length);
        Assert.True(file.TrySlice(entries["a/data/0"].Offset, 5, out ReadOnlySpan<byte> bytes));
        Assert.Equal("hello"u8.ToArray(), bytes.ToArray());
    }

    [Fact]
    public void Sizes_in_both_headers_are_accepted_when_they_agree()
    {
        // The form of Python's zipfile: no descriptor flag, everything in the local header.
        TorchArchive archive = Archive(central => BinaryPrimitives.WriteUInt16LittleEndian(central.AsSpan(8), 0x800));
        archive.EditLocal = (name, local) =>
        {
            if (name != "a/data/0") return;
            BinaryPrimitives.WriteUInt16LittleEndian(local.AsSpan(6), 0x800);
            BinaryPrimitives.WriteUInt32LittleEndian(local.AsSpan(14), (uint)"hello"u8.ToArray().Sum(value => value * 31));
            BinaryPrimitives.WriteUInt32LittleEndian(local.AsSpan(18), 5);
            BinaryPrimitives.WriteUInt32LittleEndian(local.AsSpan(22), 5);
        };
        using MappedFile file = MappedFile.Open(_folder.Write("x.bin", archive.Build()));
        Assert.Equal(5, ZipContainer.Read(file)["a/data/0"].Length);
    }

    [Fact]
    public void Zip64_sizes_and_offset_are_read()
    {
        TorchArchive archive = Archive();
        archive.WideDescriptors = true;
        byte[] whole = archive.Build();
        int header = Find(whole, "a/data/0") - 30;
        foreach (int wrong in (int[])[0, 1])
        {
            archive.CentralExtra = name => name == "a/data/0"
                ? [.. "xx"u8, .. TorchArchive.U16(1), 0, .. TorchArchive.U16(1), .. TorchArchive.U16(24), .. TorchArchive.U64(5), .. TorchArchive.U64(5), .. TorchArchive.U64(header + wrong)]
                : [];
            archive.EditCentral = (name, central) =>
            {
                if (name != "a/data/0") return;
                central.AsSpan(20, 8).Fill(0xff);
                central.AsSpan(42, 4).Fill(0xff);
            };
            if (wrong != 0)
            {
                Refuses(archive, "not a usable PyTorch archive");
                continue;
            }
            using MappedFile file = MappedFile.Open(_folder.Write("x.bin", archive.Build()));
            ZipEntry entry = ZipContainer.Read(file)["a/data/0"];
            Assert.True(file.TrySlice(entry.Offset, entry.Length, out ReadOnlySpan<byte> bytes));
            Assert.Equal("hello"u8.ToArray(), bytes.ToArray());
        }
    }

    [Fact]
    public void Zip64_size_beyond_the_file()
    {
        TorchArchive archive = Archive(central => central.AsSpan(20, 8).Fill(0xff));
        archive.CentralExtra = name => name == "a/data/0" ? [.. TorchArchive.U16(1), .. TorchArchive.U16(16), .. TorchArchive.U64(-1), .. TorchArchive.U64(-1)] : [];
        Refuses(archive, "places the entry \"a/data/0\" outside the file");
    }

    [Fact]
    public void Compressed_entry() => Refuses(Archive(central => central[10] = 8), "the compressed entry \"a/data/0\"");

    [Fact]
    public void Compressed_only_in_the_local_header() => Refuses(Archive(local: bytes => bytes[8] = 8), "differently in its two headers");

    [Fact]
    public void Encrypted_entry() => Refuses(Archive(central => central[8] |= 1), "the encrypted entry \"a/data/0\"");

    [Fact]
    public void Unknown_flags() => Refuses(Archive(central => central[8] |= 0x40), "with unknown flags");

    [Fact]
    public void Two_different_sizes() => Refuses(Archive(central => central[20] = 4), "two different sizes although it is uncompressed");

    [Fact]
    public void Size_against_the_descriptor() => Refuses(Archive(central => central[20] = central[24] = 4), "different sizes or checksums");

    [Fact]
    public void Checksum_against_the_descriptor() => Refuses(Archive(central => central[16] ^= 1), "different sizes or checksums");

    [Fact]
    public void Size_against_the_local_header() => Refuses(Archive(local: bytes => bytes[18] = bytes[22] = 9), "different sizes or checksums in its two headers");

    [Fact]
    public void Name_against_the_local_header() => Refuses(Archive(local: bytes => bytes[30] = (byte)'b'), "differently in its two headers");

    [Fact]
    public void Name_not_ASCII() => Refuses(Archive(central => central[46] = 0xe9), "whose name is not plain ASCII");

    [Fact]
    public void Another_disk() => Refuses(Archive(central => central[34] = 1), "spans several disks");

    [Fact]
    public void Offset_outside() => Refuses(Archive(central => BinaryPrimitives.WriteUInt32LittleEndian(central.AsSpan(42), 0x7fffffff)), "outside the file");

    [Fact]
    public void Zip64_without_its_sizes() => Refuses(Archive(central => central.AsSpan(20, 8).Fill(0xff)), "lacks the zip64 sizes");

    [Fact]
    public void Duplicate_names()
    {
        TorchArchive archive = Archive();
        archive.Entries.Add(archive.Entries[1]);
        Refuses(archive, "two entries named \"a/data/0\"");
    }

    [Fact]
    public void Overlapping_entries()
    {
        // A second archive inside the data of the first entry: its local header is valid on its own.
        byte[] inner = Archive().Build();
        TorchArchive archive = new();
        archive.Entries.Add(("a/outer", inner));
        archive.Entries.Add(("a/data/0", "hello"u8.ToArray()));
        byte[] whole = archive.Build();
        int innerHeader = Find(whole, "a/data/0") - 30;
        archive.EditCentral = (name, central) =>
        {
            if (name == "a/data/0") BinaryPrimitives.WriteUInt32LittleEndian(central.AsSpan(42), (uint)innerHeader);
        };
        Refuses(archive, "overlapping entries: \"a/outer\" and \"a/data/0\"");
    }

    [Fact]
    public void Truncated_at_the_end() => Refuses(Archive().Build()[..^1], "does not end with a ZIP directory");

    [Fact]
    public void Truncated_to_nothing_but_the_magic() => Refuses(Archive().Build()[..10], "is truncated");

    [Fact]
    public void Bytes_after_the_end() => Refuses([.. Archive().Build(), 0], "does not end with a ZIP directory");

    [Fact]
    public void End_records_that_disagree()
    {
        byte[] bytes = Archive().Build();
        bytes[^10]++;
        Refuses(bytes, "two end records that disagree");
    }

    [Fact]
    public void Directory_elsewhere()
    {
        byte[] bytes = Archive().Build();
        bytes[^6]++;
        bytes[^(42 + 8)]++;
        Refuses(bytes, "does not lie where its end record says");
    }

    [Fact]
    public void More_entries_than_the_directory_can_hold()
    {
        byte[] bytes = Archive().Build();
        // zip64 counts, then the old ones.
        foreach (int at in (int[])[98 - 24, 98 - 32]) BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan(bytes.Length - at), 60000);
        foreach (int at in (int[])[14, 12]) BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(bytes.Length - at), 60000);
        Refuses(bytes, "bytes for 60000 entries");
    }

    private static TorchArchive Archive(Action<byte[]>? central = null, Action<byte[]>? local = null)
    {
        TorchArchive archive = new();
        archive.Entries.Add(("a/data.pkl", [1, 2, 3]));
        archive.Entries.Add(("a/data/0", "hello"u8.ToArray()));
        archive.Entries.Add(("a/empty", []));
        archive.EditCentral = (name, bytes) => Apply(name, bytes, central);
        archive.EditLocal = (name, bytes) => Apply(name, bytes, local);
        return archive;
    }

    private static void Apply(string name, byte[] bytes, Action<byte[]>? edit)
    {
        if (name == "a/data/0") edit?.Invoke(bytes);
    }

    private static int Find(byte[] bytes, string text) => bytes.AsSpan().IndexOf(System.Text.Encoding.ASCII.GetBytes(text));

    private void Refuses(TorchArchive archive, string expected) => Refuses(archive.Build(), expected);

    private void Refuses(byte[] bytes, string expected)
    {
        string path = _folder.Write("x.bin", bytes);
        using MappedFile file = MappedFile.Open(path);
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => ZipContainer.Read(file));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.Contains(path, error.Message, StringComparison.Ordinal);
    }
}
