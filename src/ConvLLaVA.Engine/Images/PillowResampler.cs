using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Images;

/// <summary>Pillow's 8-bit bicubic resize, byte for byte (Pillow 9.4 to 10.3, <c>src/libImaging/Resample.c</c>): a horizontal pass rounded to
/// 8 bits, then a vertical pass; a pass is skipped when its dimension does not change.</summary>
public static class PillowResampler
{
    /// <summary>Resizes as <c>image.resize((width, height), Image.BICUBIC)</c> does.</summary>
    /// <param name="image">The source.</param>
    /// <param name="width">Columns wanted, at least 1.</param>
    /// <param name="height">Rows wanted, at least 1.</param>
    /// <param name="threads">Threads to use; 0 means one per processor. The bytes do not depend on it.</param>
    /// <returns>A new picture, or <paramref name="image"/> itself when its size is already right.</returns>
    /// <exception cref="ArgumentOutOfRangeException">A wanted side is below 1, or <paramref name="threads"/> is negative.</exception>
    /// <exception cref="InvalidInputException">The result is larger than one array can hold.</exception>
    public static RgbImage ResizeBicubic(RgbImage image, int width, int height, int threads = 0)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentOutOfRangeException.ThrowIfLessThan(width, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(height, 1);
        ArgumentOutOfRangeException.ThrowIfNegative(threads);
        if (image.Width == width && image.Height == height) return image;
        return Resample(ResampleSource.Whole(image), ResampleWindow.Whole(width, height), threads, ResamplePath.Auto);
    }

    /// <summary>Resizes a picture on its canvas and computes only a window of the result.</summary>
    internal static RgbImage Resample(ResampleSource source, ResampleWindow window, int threads, ResamplePath path)
    {
        if (3L * window.Width * window.Height > Array.MaxLength)
        {
            throw new InvalidInputException($"A {window.Width}x{window.Height} picture was asked for, expected at most {Array.MaxLength / 3} pixels.");
        }
        if (path == ResamplePath.Auto) path = Best();
        return path switch
        {
            ResamplePath.Avx512 => ResampleJob<Avx512Kernel>.Run(source, window, threads),
            ResamplePath.Avx2 => ResampleJob<Avx2Kernel>.Run(source, window, threads),
            ResamplePath.Vector128 => ResampleJob<Vector128Kernel>.Run(source, window, threads),
            _ => ResampleJob<ScalarKernel>.Run(source, window, threads),
        };
    }

    /// <summary>True when this processor can run the path.</summary>
    internal static bool IsSupported(ResamplePath path) => path switch
    {
        ResamplePath.Avx512 => Avx512BW.IsSupported,
        ResamplePath.Avx2 => Avx2.IsSupported,
        ResamplePath.Vector128 => Vector128.IsHardwareAccelerated,
        _ => true,
    };

    private static ResamplePath Best()
    {
        if (IsSupported(ResamplePath.Avx512)) return ResamplePath.Avx512;
        if (IsSupported(ResamplePath.Avx2)) return ResamplePath.Avx2;
        return IsSupported(ResamplePath.Vector128) ? ResamplePath.Vector128 : ResamplePath.Scalar;
    }
}
