using ConvLLaVA.Cuda;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Vision;

/// <summary>gather_patches.cu and bias_activation.cu.</summary>
public sealed class ElementTests
{
    /// <summary>(images, height, width, patch): the stem's patch, edges that are no whole patch, patches whose rows are not packs.</summary>
    public static TheoryData<int, int, int, int, Storage> Pictures()
    {
        var data = new TheoryData<int, int, int, int, Storage>();
        foreach (Storage storage in StorageExtensions.All)
        {
            foreach ((int images, int height, int width, int patch) in ((int, int, int, int)[])[(1, 4, 4, 4), (2, 8, 12, 4), (1, 19, 22, 4), (1, 6, 9, 3), (3, 2, 5, 1), (1, 16, 16, 8), (1, 14, 28, 14)])
            {
                data.Add(images, height, width, patch, storage);
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Pictures))]
    public void Patches_are_gathered_and_normalised(int images, int height, int width, int patch, Storage storage)
    {
        var random = new Random(31);
        var pixels = new byte[images * height * width * 3];
        random.NextBytes(pixels);
        float[] lut = Numbers.Normal(32, 3 * 256);
        Kernel kernel = Kernel.Compile("gather_patches.cu", storage);
        int row = patch * patch * 3, rows = images * (height / patch) * (width / patch), step = row % storage.Pack() == 0 ? storage.Pack() : 1;
        int units = rows * row / step;

        // Once with a thread a unit, once with one block that loops.
        foreach (int blocks in (int[])[(units + 255) / 256, 1])
        {
            float[] y = EmulatedDevice.InEveryOrder(run =>
            {
                DeviceArray output = run.Allocate(rows * row, storage);
                run.Launch(kernel, "gather_patches", new Dim3(blocks), 256, 0, run.Upload<byte>(pixels), run.Upload(lut), output, images, height, width, patch);
                return run.Read(output);
            });
            int at = 0;
            for (int n = 0; n < images; n++)
            {
                for (int py = 0; py < height / patch; py++)
                {
                    for (int px = 0; px < width / patch; px++)
                    {
                        for (int ky = 0; ky < patch; ky++)
                        {
                            for (int kx = 0; kx < patch; kx++)
                            {
                                for (int c = 0; c < 3; c++, at++)
                                {
                                    byte pixel = pixels[(((((n * height) + (py * patch) + ky) * width) + (px * patch) + kx) * 3) + c];
                                    Assert.Equal(storage.Round(lut[(c * 256) + pixel]), y[at]);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// <summary>(rows, columns, row groups of the grid).</summary>
    public static TheoryData<int, int, int, bool, int, Storage> Activations()
    {
        var data = new TheoryData<int, int, int, bool, int, Storage>();
        foreach (Storage storage in StorageExtensions.All)
        {
            foreach ((int rows, int columns, int groups) in ((int, int, int)[])[(1, 8, 1), (5, 96, 2), (3, 3072, 3), (7, 24, 7), (4, 9, 2), (2, 301, 1)])
            {
                data.Add(rows, columns, groups, columns != 24, 1, storage);
            }
            data.Add(3, 40, 2, true, 0, storage);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Activations))]
    public void Bias_and_exact_gelu(int rows, int columns, int groups, bool withBias, int activation, Storage storage)
    {
        float[] x = Numbers.Normal(41, rows * columns, storage, scale: 3), bias = Numbers.Normal(42, columns);
        Kernel kernel = Kernel.Compile("bias_activation.cu", storage, $"ACTIVATION={activation}");
        int threads = columns % storage.Pack() == 0 ? columns / storage.Pack() : columns;
        float[] y = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray data = run.Upload(x, storage);
            run.Launch(kernel, "bias_activation", new Dim3((threads + 255) / 256, groups), 256, 0, data, withBias ? run.Upload(bias) : KernelRun.NullPointer, rows, columns);
            return run.Read(data);
        });
        var expected = new double[x.Length];
        var slack = new double[x.Length];
        for (int i = 0; i < x.Length; i++)
        {
            double v = x[i] + (withBias ? bias[i % columns] : 0.0);
            expected[i] = activation == 1 ? VisionReference.Gelu(v) : v;
            // GELU's slope is below 1.13; its left tail is v times a difference of nearly equal numbers, good to a unit of 1.
            slack[i] = (Math.Abs(v) + Math.Abs(x[i])) * 4 * Numbers.Unit;
        }
        Numbers.AssertClose(expected, y, storage, i => slack[i], $"bias_activation {rows}x{columns}");
    }

    [Fact]
    public void The_reference_erfc_is_right()
    {
        // Values of erfc to 16 digits (Abramowitz and Stegun's table extended).
        Assert.Equal(1, VisionReference.Erfc(0), 1e-15);
        Assert.Equal(0.4795001221869535, VisionReference.Erfc(0.5), 1e-14);
        Assert.Equal(0.15729920705028513, VisionReference.Erfc(1), 1e-14);
        Assert.Equal(0.004677734981047266, VisionReference.Erfc(2), 1e-14);
        Assert.Equal(2.209049699858544e-5, VisionReference.Erfc(3), 1e-18);
        Assert.Equal(1.541725790028002e-8, VisionReference.Erfc(4), 1e-21);
        Assert.Equal(1.8427007929497148, VisionReference.Erfc(-1), 1e-14);
    }
}
