using System.Security.Cryptography;
using System.Text;
using ConvLLaVA.Cuda;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Compiled kernels on disk, safe to share between processes: an entry is written to a temporary file and moved into place, and
/// its checksum is looked at when it is read. A folder that cannot be written still serves what it has.
/// <para>An entry's name is <c>KERNEL-HASH.ARCH.nvrtcVERSION</c>: the hash covers the kernel's text, every file it includes and the
/// options, so that a changed kernel has another name and nothing is ever out of date.</para></summary>
internal sealed class KernelCache
{
    private static readonly byte[] Magic = "CVKERN01"u8.ToArray();

    /// <summary>A cache in <paramref name="folder"/>; null takes the environment's, or the user's cache folder.</summary>
    public KernelCache(string? folder = null) => Folder = folder ?? KernelCacheFolder.Path;

    /// <summary>The folder; it need not exist.</summary>
    public string Folder { get; }

    /// <summary>Why nothing could be written, or null while all went well.</summary>
    public string? WriteProblem { get; private set; }

    /// <summary>Entries that were found damaged.</summary>
    public int Damaged { get; private set; }

    /// <summary>Name of a specialisation up to architecture and compiler: its file's name and a hash of all that its code depends on.</summary>
    public static string Stem(KernelSources sources, KernelSpec spec, IEnumerable<string> options)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Append(hash, spec.File);
        Append(hash, sources.Text(spec.File));
        foreach (NvrtcHeader header in sources.Includes(spec.File))
        {
            Append(hash, header.Name);
            Append(hash, header.Source);
        }
        foreach (string option in options) Append(hash, option);
        return $"{Path.GetFileNameWithoutExtension(spec.File)}-{Convert.ToHexStringLower(hash.GetHashAndReset())[..32]}";
    }

    /// <summary>Full name of an entry.</summary>
    public static string EntryName(string stem, string target, Version nvrtc) => $"{stem}.{target}.nvrtc{nvrtc.Major}.{nvrtc.Minor}";

    /// <summary>The code kept under <paramref name="entry"/>, or null when there is none or it is damaged.</summary>
    public byte[]? Read(string entry)
    {
        try
        {
            string path = Path.Combine(Folder, entry);
            if (!File.Exists(path)) return null;
            byte[] bytes = File.ReadAllBytes(path);
            int start = Magic.Length + SHA256.HashSizeInBytes;
            if (bytes.Length > start && bytes.AsSpan(0, Magic.Length).SequenceEqual(Magic)
                && SHA256.HashData(bytes.AsSpan(start)).AsSpan().SequenceEqual(bytes.AsSpan(Magic.Length, SHA256.HashSizeInBytes)))
            {
                return bytes[start..];
            }
            Damaged++;
            return null;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>An entry for <paramref name="stem"/> and <paramref name="target"/> by any compiler, for machines without one.</summary>
    public byte[]? ReadAny(string stem, string target)
    {
        try
        {
            if (!Directory.Exists(Folder)) return null;
            // The newest compiler first: versions compare as numbers, not as text.
            string start = $"{stem}.{target}.nvrtc";
            IEnumerable<string> names = Directory.EnumerateFiles(Folder, start + "*").Select(path => Path.GetFileName(path))
                .OrderByDescending(name => Version.TryParse(name.AsSpan(start.Length), out Version? version) ? version : new Version());
            return names.Select(Read).FirstOrDefault(code => code is not null);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Keeps <paramref name="code"/> under <paramref name="entry"/>, if the folder can be written.</summary>
    /// <returns>False when it cannot; <see cref="WriteProblem"/> says why.</returns>
    public bool Write(string entry, byte[] code)
    {
        string path = Path.Combine(Folder, entry), temporary = $"{path}.{Environment.ProcessId}.{Guid.NewGuid():N}.tmp";
        try
        {
            Directory.CreateDirectory(Folder);
            using (FileStream file = new(temporary, FileMode.CreateNew, FileAccess.Write))
            {
                file.Write(Magic);
                file.Write(SHA256.HashData(code));
                file.Write(code);
            }
            File.Move(temporary, path, overwrite: true);
            return true;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            WriteProblem = error.Message;
            try
            {
                File.Delete(temporary);
            }
            catch (Exception second) when (second is IOException or UnauthorizedAccessException)
            {
                // It stays behind; nothing reads it.
            }
            return false;
        }
    }

    private static void Append(IncrementalHash hash, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        hash.AppendData(BitConverter.GetBytes(bytes.Length));
        hash.AppendData(bytes);
    }
}
