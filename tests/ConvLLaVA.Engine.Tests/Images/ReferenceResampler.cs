using ConvLLaVA.Engine.Images;

namespace ConvLLaVA.Engine.Tests.Images;

/// <summary>Pillow's bicubic resize written as slowly and plainly as its description: the yardstick of the fast one.</summary>
internal static class ReferenceResampler
{
    public static RgbImage Resize(RgbImage image, int width, int height)
    {
        if (width != image.Width)
        {
            image = Pass(image, width, image.Height, width, (x, _) => x, (x, y, tap) => (tap, y), image.Width);
        }
        if (height != image.Height)
        {
            image = Pass(image, image.Width, height, height, (_, y) => y, (x, y, tap) => (x, tap), image.Height);
        }
        return image;
    }

    /// <summary>The picture pasted on a square of one colour, as LLaVA's <c>expand2square</c> does.</summary>
    public static RgbImage PadToSquare(RgbImage image, byte red, byte green, byte blue)
    {
        int side = Math.Max(image.Width, image.Height);
        int left = (side - image.Width) / 2, top = (side - image.Height) / 2;
        byte[] pixels = new byte[3 * side * side];
        for (int y = 0; y < side; y++)
        {
            for (int x = 0; x < side; x++)
            {
                bool inside = x >= left && x < left + image.Width && y >= top && y < top + image.Height;
                for (int c = 0; c < 3; c++)
                {
                    pixels[3 * (y * side + x) + c] = inside
                        ? image.Pixels[3 * ((y - top) * image.Width + x - left) + c]
                        : c == 0 ? red : c == 1 ? green : blue;
                }
            }
        }
        return new RgbImage(side, side, pixels);
    }

    private static RgbImage Pass(RgbImage image, int width, int height, int outSize, Func<int, int, int> axis, Func<int, int, int, (int X, int Y)> at, int inSize)
    {
        double scale = (double)(float)inSize / outSize, filterScale = Math.Max(scale, 1.0), support = 2.0 * filterScale;
        byte[] pixels = new byte[3 * width * height];
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                double center = (axis(x, y) + 0.5) * scale;
                int min = Math.Max(0, (int)(center - support + 0.5)), max = Math.Min(inSize, (int)(center + support + 0.5));
                double[] weights = new double[max - min];
                double total = 0;
                for (int k = 0; k < weights.Length; k++)
                {
                    weights[k] = Cubic((k + min - center + 0.5) * (1.0 / filterScale));
                    total += weights[k];
                }
                for (int c = 0; c < 3; c++)
                {
                    long sum = 1 << 21;
                    for (int k = 0; k < weights.Length; k++)
                    {
                        double weight = total != 0 ? weights[k] / total : weights[k];
                        int fixedPoint = weight < 0 ? (int)(-0.5 + weight * (1 << 22)) : (int)(0.5 + weight * (1 << 22));
                        (int fromX, int fromY) = at(x, y, k + min);
                        sum += (long)fixedPoint * image.Pixels[3 * (fromY * image.Width + fromX) + c];
                    }
                    pixels[3 * (y * width + x) + c] = (byte)Math.Clamp(sum >> 22, 0, 255);
                }
            }
        }
        return new RgbImage(width, height, pixels);
    }

    private static double Cubic(double x)
    {
        x = Math.Abs(x);
        if (x < 1) return ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1;
        return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    }
}
