using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace ConvLLaVA.Engine.Generation;

/// <summary>Names for the full pages of one sequence: two pages with the same key hold the same keys and values, because they hold
/// the same tokens after the same tokens, and rows of the same pictures. The first 128 bits of SHA-256, so that nobody can
/// craft a prompt that is taken for another.</summary>
/// <param name="tokens">The sequence's tokens; it may grow at its end. Negative ids are rows of pictures.</param>
/// <param name="blockSize">Tokens a page holds.</param>
/// <param name="images">Stands for the request's pictures and how they were prepared.</param>
internal sealed class PageKeys(IReadOnlyList<int> tokens, int blockSize, UInt128 images)
{
    private const int KeyBytes = 16;
    private readonly List<UInt128> _keys = [];
    private bool _seenImage;

    /// <summary>The key of page <paramref name="page"/>; all its tokens must be known.</summary>
    public UInt128 Of(int page)
    {
        while (_keys.Count <= page) _keys.Add(Next());
        return _keys[page];
    }

    private UInt128 Next()
    {
        byte[] content = new byte[(2 * KeyBytes) + (blockSize * sizeof(int))];
        Span<byte> rest = content.AsSpan(2 * KeyBytes);
        for (int i = 0; i < blockSize; i++)
        {
            int token = tokens[(_keys.Count * blockSize) + i];
            _seenImage |= token < 0;
            BinaryPrimitives.WriteInt32LittleEndian(rest[(i * sizeof(int))..], token);
        }
        if (_keys.Count > 0) BinaryPrimitives.WriteUInt128LittleEndian(content, _keys[^1]);
        // Pages before the first picture do not depend on it: a system prompt is shared by all pictures.
        if (_seenImage) BinaryPrimitives.WriteUInt128LittleEndian(content.AsSpan(KeyBytes), images);
        UInt128 key = Digest(SHA256.HashData(content));
        return key == 0 ? 1 : key; // 0 means "no key" to the pool
    }

    /// <summary>A number for pictures: of their pixels, their size and the values the pixels stand for.</summary>
    public static UInt128 OfImages(IEnumerable<byte[]> tiles, int height, int width, ReadOnlySpan<float> lut)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Span<byte> size = stackalloc byte[2 * sizeof(int)];
        BinaryPrimitives.WriteInt32LittleEndian(size, height);
        BinaryPrimitives.WriteInt32LittleEndian(size[sizeof(int)..], width);
        hash.AppendData(size);
        hash.AppendData(MemoryMarshal.AsBytes(lut));
        foreach (byte[] tile in tiles) hash.AppendData(tile);
        return Digest(hash.GetHashAndReset());
    }

    private static UInt128 Digest(ReadOnlySpan<byte> hash) => BinaryPrimitives.ReadUInt128LittleEndian(hash);
}
