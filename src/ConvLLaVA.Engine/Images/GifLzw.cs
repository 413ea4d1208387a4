namespace ConvLLaVA.Engine.Images;

/// <summary>How the unpacking of a GIF frame ended.</summary>
internal enum LzwResult
{
    /// <summary>All samples came out.</summary>
    Complete,

    /// <summary>The codes ended first.</summary>
    Truncated,

    /// <summary>A code refers to nothing.</summary>
    Broken,
}

/// <summary>GIF's variable-length LZW.</summary>
internal static class GifLzw
{
    private const int MostCodes = 4096;

    /// <summary>Unpacks codes into samples.</summary>
    /// <param name="codes">The joined data blocks.</param>
    /// <param name="size">Bits per sample, 1 to 8.</param>
    /// <param name="samples">Receives the samples; all of it must come out.</param>
    public static LzwResult Decode(ReadOnlySpan<byte> codes, int size, Span<byte> samples)
    {
        Span<short> prefix = stackalloc short[MostCodes];
        Span<byte> suffix = stackalloc byte[MostCodes];
        Span<byte> stack = stackalloc byte[MostCodes];
        int clear = 1 << size, end = clear + 1;
        int next = clear + 2, width = size + 1, previous = -1, buffer = 0, bits = 0, at = 0, filled = 0;
        byte first = 0;
        for (int i = 0; i < clear; i++) suffix[i] = (byte)i;
        while (filled < samples.Length)
        {
            while (bits < width)
            {
                if (at == codes.Length) return LzwResult.Truncated;
                buffer |= codes[at++] << bits;
                bits += 8;
            }
            int code = buffer & ((1 << width) - 1);
            buffer >>= width;
            bits -= width;
            if (code == clear)
            {
                (next, width, previous) = (clear + 2, size + 1, -1);
                continue;
            }
            if (code == end) return LzwResult.Truncated;
            int depth = 0, walk = code;
            if (previous < 0)
            {
                if (code > end) return LzwResult.Broken;
            }
            else if (code >= next)
            {
                // The one code that may be used while it is being defined: the last string and its own first sample.
                if (code > next || next == MostCodes) return LzwResult.Broken;
                stack[depth++] = first;
                walk = previous;
            }
            while (walk > end)
            {
                stack[depth++] = suffix[walk];
                walk = prefix[walk];
            }
            first = suffix[walk];
            samples[filled++] = first;
            while (depth > 0 && filled < samples.Length) samples[filled++] = stack[--depth];
            if (previous >= 0 && next < MostCodes)
            {
                prefix[next] = (short)previous;
                suffix[next++] = first;
                if (next == 1 << width && width < 12) width++;
            }
            previous = code;
        }
        return LzwResult.Complete;
    }
}
