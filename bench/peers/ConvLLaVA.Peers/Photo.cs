using System.Runtime.InteropServices;
using SkiaSharp;

namespace ConvLLaVA.Peers;

/// <summary>A JPEG as large and about as detailed as a camera's: noise at several scales over gradients, the same on every machine.</summary>
internal static class Photo
{
    private const int Octaves = 6;

    /// <summary>Writes it with quality 90 and halved colour resolution.</summary>
    public static void Write(string path, int width, int height)
    {
        uint[] pixels = new uint[width * height]; // [height, width]
        Parallel.For(0, height, y =>
        {
            for (int x = 0; x < width; x++)
            {
                float light = Noise(x, y, 1), warm = Noise(x, y, 2);
                uint red = Sample(light + (0.3f * warm)), green = Sample(light), blue = Sample(light - (0.3f * warm) + (0.2f * y / height));
                pixels[(y * width) + x] = 0xFF000000 | (blue << 16) | (green << 8) | red;
            }
        });
        using var bitmap = new SKBitmap(new SKImageInfo(width, height, SKColorType.Rgba8888, SKAlphaType.Opaque));
        MemoryMarshal.AsBytes(pixels.AsSpan()).CopyTo(bitmap.GetPixelSpan());
        using SKData data = bitmap.Encode(SKEncodedImageFormat.Jpeg, 90);
        File.WriteAllBytes(path, data.ToArray());
    }

    private static uint Sample(float value) => (uint)Math.Clamp((int)(128 + (127 * value)), 0, 255);

    /// <summary>Value noise, each octave at half the scale and three fifths of the strength of the one before.</summary>
    private static float Noise(int x, int y, uint seed)
    {
        float sum = 0, strength = 0.5f;
        int cell = 512;
        for (int octave = 0; octave < Octaves; octave++, cell /= 4, strength *= 0.62f)
        {
            if (cell == 0) return sum + (strength * Lattice(x, y, seed + (uint)octave));
            float u = (x % cell) / (float)cell, v = (y % cell) / (float)cell;
            int i = x / cell, j = y / cell;
            float top = Mix(Lattice(i, j, seed + (uint)octave), Lattice(i + 1, j, seed + (uint)octave), u);
            float bottom = Mix(Lattice(i, j + 1, seed + (uint)octave), Lattice(i + 1, j + 1, seed + (uint)octave), u);
            sum += strength * Mix(top, bottom, v);
        }
        return sum;
    }

    private static float Mix(float a, float b, float t) => a + ((b - a) * t * t * (3 - (2 * t)));

    /// <summary>A number from -1 to 1 that belongs to a lattice point.</summary>
    private static float Lattice(int x, int y, uint seed)
    {
        uint hash = ((uint)x * 0x9E3779B1) ^ ((uint)y * 0x85EBCA77) ^ (seed * 0xC2B2AE3D);
        hash = (hash ^ (hash >> 15)) * 0x2C1B3C6D;
        hash = (hash ^ (hash >> 12)) * 0x297A2D39;
        return ((hash ^ (hash >> 15)) / 2147483648f) - 1;
    }
}
