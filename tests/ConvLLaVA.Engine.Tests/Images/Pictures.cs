using System.Security.Cryptography;
using ConvLLaVA.Engine.Images;

namespace ConvLLaVA.Engine.Tests.Images;

/// <summary>Made-up pictures and the files of <c>tests/fixtures/images</c>.</summary>
internal static class Pictures
{
    public static string Folder => Path.Combine(Repository.Fixtures, "images");

    public static RgbImage Random(int width, int height, int seed)
    {
        byte[] pixels = new byte[3 * width * height];
        new Random(seed).NextBytes(pixels);
        return new RgbImage(width, height, pixels);
    }

    /// <summary>The pattern of the golden vectors: p(x,y,c) = (7x+13y+29c+11((xy) mod 17)+97((x/16+y/16) mod 2)) mod 256.</summary>
    public static RgbImage Golden(int width, int height)
    {
        byte[] pixels = new byte[3 * width * height];
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                for (int c = 0; c < 3; c++)
                {
                    pixels[3 * (y * width + x) + c] = (byte)(7 * x + 13 * y + 29 * c + 11 * (x * y % 17) + 97 * ((x / 16 + y / 16) % 2));
                }
            }
        }
        return new RgbImage(width, height, pixels);
    }

    public static string Sha256(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));
}
