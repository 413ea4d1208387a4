using ConvLLaVA.Cuda;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Vision;

/// <summary>depthwise_norm.cu and depthwise_norm_any.cu.</summary>
public sealed class DepthwiseNormTests
{
    private const float Epsilon = 1e-6f;

    /// <summary>(shape, strips a block at most): maps smaller than the filter, one pixel, one row, one column, edges in every position of
    /// a strip, strips that share warps, more images than one, the largest number of channels.</summary>
    private static readonly (DepthwiseCase Shape, int Strips)[] Shapes =
    [
        (new(1, 1, 1, 24), 1), (new(1, 1, 9, 48), 8), (new(1, 9, 1, 48), 4), (new(1, 2, 3, 96), 16), (new(2, 8, 8, 24), 13), (new(1, 13, 11, 32), 5),
        (new(3, 5, 7, 160), 3), (new(1, 6, 13, 192), 16), (new(1, 4, 6, 768), 4), (new(1, 2, 5, 1536), 2), (new(1, 1, 2, 3072), 1), (new(2, 3, 1, 256), 2),
    ];

    /// <summary>Shapes, tile widths and storage types.</summary>
    public static TheoryData<int, int, Storage> Cases()
    {
        var data = new TheoryData<int, int, Storage>();
        foreach (Storage storage in StorageExtensions.All)
        {
            for (int i = 0; i < Shapes.Length; i++)
            {
                if (Shapes[i].Shape.Channels / storage.Pack() > 384) continue;
                data.Add(i, 6, storage);
                if (i % 2 == 0) data.Add(i, 4, storage);
                if (i % 3 == 0) data.Add(i, 2, storage);
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Depthwise_norm_is_the_definition(int shape, int tile, Storage storage) => CheckPacked(Shapes[shape].Shape, Shapes[shape].Strips, tile, storage);

    [Fact]
    public void Depthwise_norm_of_any_shape()
    {
        var shapes = from images in Gen.Choose(1, 2)
                     from height in Gen.Choose(1, 12)
                     from width in Gen.Choose(1, 20)
                     from groups in Gen.Choose(1, 20)
                     from strips in Gen.Choose(1, 9)
                     from storage in Gen.Elements(StorageExtensions.All)
                     select (new DepthwiseCase(images, height, width, groups * storage.Pack()), strips, storage);
        Prop.ForAll(shapes.ToArbitrary(), shape => CheckPacked(shape.Item1, shape.strips, 6, shape.storage)).Check(Config.QuickThrowOnFailure.WithMaxTest(20));
    }

    [Fact]
    public void Three_thousand_channels_in_fp32() => CheckPacked(new DepthwiseCase(1, 2, 2, 3072), 1, 2, Storage.F32, maxThreads: 768);

    /// <summary>Channel counts that are not packs of 16 bytes.</summary>
    public static TheoryData<int, int, int, int, Storage> OddChannels()
    {
        var data = new TheoryData<int, int, int, int, Storage>();
        foreach (Storage storage in StorageExtensions.All)
        {
            foreach ((int images, int height, int width, int channels) in ((int, int, int, int)[])[(1, 1, 1, 1), (1, 3, 4, 5), (2, 9, 2, 30), (1, 1, 5, 300), (1, 2, 2, 3074)]) data.Add(images, height, width, channels, storage);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(OddChannels))]
    public void Any_number_of_channels(int images, int height, int width, int channels, Storage storage)
    {
        Kernel kernel = Kernel.Compile("depthwise_norm_any.cu", storage);
        Check(new DepthwiseCase(images, height, width, channels), storage, "depthwise_norm_any", (run, arguments) =>
            run.Launch(kernel, "depthwise_norm_any", new Dim3(images * height * width), 256, 4 * channels, arguments));
    }

    private static void CheckPacked(DepthwiseCase shape, int strips, int tile, Storage storage, int maxThreads = 384)
    {
        Kernel kernel = Kernel.Compile("depthwise_norm.cu", storage, $"TILE_WIDTH={tile}", $"MAX_THREADS={maxThreads}");
        int groups = shape.Channels / storage.Pack(), lines = shape.Images * shape.Height;
        strips = Math.Clamp(strips, 1, maxThreads / groups);
        int block = (((strips * groups) + 31) / 32) * 32;
        strips = block / groups;
        var grid = new Dim3((shape.Width + tile - 1) / tile, (lines + strips - 1) / strips);
        int shared = 4 * tile * strips * (groups + 1);
        Check(shape, storage, $"depthwise_norm tile {tile}, {strips} strips", (run, arguments) => run.Launch(kernel, "depthwise_norm", grid, block, shared, arguments));
    }

    private static void Check(DepthwiseCase shape, Storage storage, string what, Action<KernelRun, object[]> launch)
    {
        int elements = shape.Images * shape.Height * shape.Width * shape.Channels;
        float[] x = Numbers.Normal(21, elements, storage), filter = Numbers.Normal(22, 49 * shape.Channels, storage, scale: 0.2), filterBias = Numbers.Normal(23, shape.Channels);
        float[] weight = Numbers.Normal(24, shape.Channels, mean: 1), bias = Numbers.Normal(25, shape.Channels);
        float[] y = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray output = run.Allocate(elements, storage);
            launch(run, [run.Upload(x, storage), run.Upload(filter, storage), run.Upload(filterBias), run.Upload(weight), run.Upload(bias), output,
                shape.Images, shape.Height, shape.Width, shape.Channels, Epsilon]);
            return run.Read(output);
        });
        (double[] expected, double[] slack) = VisionReference.DepthwiseNorm(shape, x, filter, filterBias, weight, bias, Epsilon);
        Numbers.AssertClose(expected, y, storage, i => slack[i], $"{what}, {shape}");
    }
}
