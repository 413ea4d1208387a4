using System.Text;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

/// <summary>Builds a ZIP archive the way <c>torch.save</c> does (data descriptors, zip64 end record), with hooks to break it.</summary>
internal sealed class TorchArchive
{
    public List<(string Name, byte[] Data)> Entries { get; } = [];

    /// <summary>Changes the local header of the named entry after it is built.</summary>
    public Action<string, byte[]>? EditLocal { get; set; }

    /// <summary>Changes the directory entry of the named entry after it is built.</summary>
    public Action<string, byte[]>? EditCentral { get; set; }

    /// <summary>Data descriptors with 64-bit sizes, as torch writes them for entries that begin beyond 4 GiB.</summary>
    public bool WideDescriptors { get; set; }

    /// <summary>Extra field of the named directory entry.</summary>
    public Func<string, byte[]>? CentralExtra { get; set; }

    /// <summary>A weight file: pickle, storages 0, 1, …, version and byte order.</summary>
    public static TorchArchive Of(byte[] pickle, params byte[][] storages)
    {
        TorchArchive archive = new();
        archive.Entries.Add(("archive/data.pkl", pickle));
        archive.Entries.Add(("archive/byteorder", "little"u8.ToArray()));
        for (int i = 0; i < storages.Length; i++) archive.Entries.Add(($"archive/data/{i}", storages[i]));
        archive.Entries.Add(("archive/version", "3\n"u8.ToArray()));
        return archive;
    }

    public byte[] Build()
    {
        List<byte> file = [];
        List<byte> directory = [];
        foreach ((string name, byte[] data) in Entries)
        {
            byte[] text = Encoding.ASCII.GetBytes(name);
            uint crc = (uint)data.Sum(value => value * 31);
            int offset = file.Count;
            ushort flags = (ushort)(data.Length > 0 ? 0x808 : 0x800);
            int padding = (64 - ((offset + 30 + text.Length + 4) % 64)) % 64;
            byte[] local = [.. U32(0x04034b50), .. U16(0), .. U16(flags), .. U16(0), .. U32(0), .. U32(0), .. U32(0), .. U32(0),
                .. U16(text.Length), .. U16(padding + 4), .. text, .. "FB"u8, .. U16(padding), .. new byte[padding]];
            EditLocal?.Invoke(name, local);
            file.AddRange(local);
            file.AddRange(data);
            byte[] length = WideDescriptors ? U64(data.Length) : U32((uint)data.Length);
            if (data.Length > 0) file.AddRange([.. U32(0x08074b50), .. U32(crc), .. length, .. length]);
            if (data.Length == 0) crc = 0;
            byte[] extra = CentralExtra?.Invoke(name) ?? [];
            byte[] central = [.. U32(0x02014b50), .. U16(0), .. U16(0), .. U16(flags), .. U16(0), .. U32(0), .. U32(crc), .. U32((uint)data.Length),
                .. U32((uint)data.Length), .. U16(text.Length), .. U16(extra.Length), .. U16(0), .. U16(0), .. U16(0), .. U32(0), .. U32((uint)offset), .. text, .. extra];
            EditCentral?.Invoke(name, central);
            directory.AddRange(central);
        }
        uint start = (uint)file.Count, size = (uint)directory.Count;
        file.AddRange(directory);
        uint end = (uint)file.Count;
        file.AddRange([.. U32(0x06064b50), .. U64(44), .. U16(0x31e), .. U16(45), .. U32(0), .. U32(0), .. U64(Entries.Count), .. U64(Entries.Count), .. U64(size), .. U64(start)]);
        file.AddRange([.. U32(0x07064b50), .. U32(0), .. U64(end), .. U32(1)]);
        file.AddRange([.. U32(0x06054b50), .. U16(0), .. U16(0), .. U16(Entries.Count), .. U16(Entries.Count), .. U32(size), .. U32(start), .. U16(0)]);
        return [.. file];
    }

    public static byte[] U16(int value) => BitConverter.GetBytes((ushort)value);

    public static byte[] U32(uint value) => BitConverter.GetBytes(value);

    public static byte[] U64(long value) => BitConverter.GetBytes(value);
}
