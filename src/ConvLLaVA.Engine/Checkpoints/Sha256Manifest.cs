using System.Security.Cryptography;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Pinned checksums in the format of <c>sha256sum</c>: 64 hexadecimal digits, two characters, a path relative to the
/// manifest's folder.</summary>
internal sealed class Sha256Manifest
{
    private const long MaxBytes = 1 << 20;

    private readonly string _path;
    private readonly Dictionary<string, string> _sums = [];

    private Sha256Manifest(string path) => _path = path;

    /// <summary>Reads a manifest.</summary>
    /// <exception cref="InvalidInputException">The file cannot be read or a line has another form.</exception>
    public static Sha256Manifest Load(string path)
    {
        string[] lines;
        try
        {
            if (new FileInfo(path).Length > MaxBytes) throw new InvalidInputException($"{path} is longer than a megabyte, expected a list of SHA-256 checksums.");
            lines = File.ReadAllLines(path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"{path} cannot be read: {exception.Message}", exception);
        }
        string folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        Sha256Manifest manifest = new(path);
        foreach (string line in lines)
        {
            if (line.Length == 0) continue;
            if (line.Length < 67 || line[64] != ' ' || line[65] is not (' ' or '*') || !line.AsSpan(0, 64).ContainsOnlyHex())
            {
                throw new InvalidInputException($"{path} has a line that is not a checksum, expected 64 hexadecimal digits, two characters and a file name.");
            }
            manifest._sums[Path.GetFullPath(Path.Combine(folder, line[66..]))] = line[..64].ToLowerInvariant();
        }
        return manifest;
    }

    /// <summary>Compares a file with its pinned checksum.</summary>
    /// <exception cref="InvalidInputException">The file is not listed or differs.</exception>
    public void Check(string file)
    {
        if (!_sums.TryGetValue(Path.GetFullPath(file), out string? expected))
        {
            throw new InvalidInputException($"{file} is not listed in {_path}, expected a checksum for every file of the checkpoint that is read.");
        }
        try
        {
            using FileStream stream = new(file, FileMode.Open, FileAccess.Read, FileShare.Read, 1);
            string found = Convert.ToHexStringLower(SHA256.HashData(stream));
            if (found != expected) throw new InvalidInputException($"{file} has the SHA-256 checksum {found}, expected {expected} from {_path}.");
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"{file} cannot be read: {exception.Message}", exception);
        }
    }
}

/// <summary>Text tests for checksums.</summary>
internal static class HexText
{
    /// <summary>True when every character is a hexadecimal digit.</summary>
    public static bool ContainsOnlyHex(this ReadOnlySpan<char> text)
    {
        foreach (char character in text)
        {
            if (!char.IsAsciiHexDigit(character)) return false;
        }
        return true;
    }
}
