using ConvLLaVA.Cuda;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Vision;

/// <summary>layer_norm.cu and norm_gather.cu.</summary>
public sealed class NormTests
{
    private const float Epsilon = 1e-6f;

    /// <summary>(rows, columns): the model's widths, one row, one column, rows that are not packs, wider than a block holds.</summary>
    public static TheoryData<int, int, Storage> Rows()
    {
        var data = new TheoryData<int, int, Storage>();
        (int, int)[] shapes = [(1, 8), (5, 24), (17, 48), (9, 192), (3, 384), (3, 768), (9, 1024), (2, 1032), (2, 1536), (2, 3072), (2, 4104), (1, 9000), (3, 1), (4, 7), (2, 100), (2, 1001)];
        foreach (Storage storage in StorageExtensions.All)
        {
            foreach ((int rows, int columns) in shapes) data.Add(rows, columns, storage);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Rows))]
    public void Layer_norm_is_the_definition(int rows, int columns, Storage storage) => CheckLayerNorm(rows, columns, storage, seed: rows + columns, inPlace: columns % 2 == 0);

    [Fact]
    public void Layer_norm_of_any_shape()
    {
        var shapes = from rows in Gen.Choose(1, 20) from columns in Gen.Choose(1, 700) from storage in Gen.Elements(StorageExtensions.All) select (rows, columns, storage);
        Prop.ForAll(shapes.ToArbitrary(), shape => CheckLayerNorm(shape.rows, shape.columns, shape.storage, seed: 3, inPlace: false))
            .Check(Config.QuickThrowOnFailure.WithMaxTest(20));
    }

    /// <summary>The variance is of the centred row: with sums of squares, a row of 1000 plus or minus a little would be noise.</summary>
    [Fact]
    public void A_large_mean_costs_no_more_than_its_own_rounding()
    {
        const int Columns = 768;
        float[] x = Numbers.Normal(5, Columns, mean: 1000), weight = Enumerable.Repeat(1f, Columns).ToArray(), bias = new float[Columns];
        float[] y = RunLayerNorm(x, 1, Columns, weight, bias, Storage.F32, false);
        double mean = x.Average(v => (double)v), deviation = Math.Sqrt(x.Average(v => (v - mean) * (v - mean)));
        for (int i = 0; i < Columns; i++) Assert.Equal((x[i] - mean) / deviation, y[i], 2e-3);
    }

    /// <summary>(images, height, width, channels): odd edges are dropped, as the convolution drops them.</summary>
    public static TheoryData<int, int, int, int, Storage> Maps()
    {
        var data = new TheoryData<int, int, int, int, Storage>();
        (int, int, int, int)[] shapes = [(1, 2, 2, 24), (1, 6, 4, 192), (2, 5, 7, 48), (1, 2, 3, 1536), (1, 4, 2, 768), (1, 3, 3, 2048), (1, 4, 4, 10), (2, 2, 2, 513)];
        foreach (Storage storage in StorageExtensions.All)
        {
            foreach ((int images, int height, int width, int channels) in shapes) data.Add(images, height, width, channels, storage);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Maps))]
    public void Norm_gather_is_the_norm_in_the_order_of_cells(int images, int height, int width, int channels, Storage storage)
    {
        float[] x = Numbers.Normal(11, images * height * width * channels, storage, scale: 3, mean: 0.5);
        float[] weight = Numbers.Normal(12, channels, mean: 1), bias = Numbers.Normal(13, channels);
        Kernel kernel = Kernel.Compile("norm_gather.cu", storage);
        int pixels = 4 * images * (height / 2) * (width / 2);
        bool byWarp = channels % storage.Pack() == 0 && channels <= 128 * storage.Pack();
        float[] y = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray output = run.Allocate(pixels * channels, storage);
            run.Launch(kernel, "norm_gather", new Dim3(byWarp ? (pixels + 7) / 8 : pixels), 256, 0,
                run.Upload(x, storage), run.Upload(weight), run.Upload(bias), output, images, height, width, channels, Epsilon);
            return run.Read(output);
        });
        (double[] expected, double[] slack) = VisionReference.LayerNorm(x, channels, weight, bias, Epsilon);
        double[] gathered = VisionReference.GatherCells<double>(expected, images, height, width, channels);
        double[] gatheredSlack = VisionReference.GatherCells<double>(slack, images, height, width, channels);
        Numbers.AssertClose(gathered, y, storage, i => gatheredSlack[i], $"norm_gather {images}x{height}x{width}x{channels}");
    }

    private static void CheckLayerNorm(int rows, int columns, Storage storage, int seed, bool inPlace)
    {
        float[] x = Numbers.Normal(seed, rows * columns, storage, scale: 2, mean: 0.3);
        float[] weight = Numbers.Normal(seed + 1, columns, mean: 1), bias = Numbers.Normal(seed + 2, columns);
        float[] y = RunLayerNorm(x, rows, columns, weight, bias, storage, inPlace);
        (double[] expected, double[] slack) = VisionReference.LayerNorm(x, columns, weight, bias, Epsilon);
        Numbers.AssertClose(expected, y, storage, i => slack[i], $"layer_norm {rows}x{columns}");
    }

    private static float[] RunLayerNorm(float[] x, int rows, int columns, float[] weight, float[] bias, Storage storage, bool inPlace)
    {
        Kernel kernel = Kernel.Compile("layer_norm.cu", storage);
        bool byWarp = columns % storage.Pack() == 0 && columns <= 128 * storage.Pack();
        return EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray input = run.Upload(x, storage), output = inPlace ? input : run.Allocate(x.Length, storage);
            run.Launch(kernel, "layer_norm", new Dim3(byWarp ? (rows + 7) / 8 : rows), 256, 0, input, run.Upload(weight), run.Upload(bias), output, rows, columns, Epsilon);
            return run.Read(output);
        });
    }
}
