using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>gemv.cu and gemv_qkv.cu on quantised weights, and dequantise.cu, against the formats' definition.</summary>
public sealed class QuantGemvTests
{
    private const float Epsilon = 1e-5f;
    private static readonly QuantFormat[] Formats = Enum.GetValues<QuantFormat>();

    /// <summary>(in, out, blocks): whole rounds and less than one, packs but no whole groups (q8, q4-128), rows that are no packs.</summary>
    private static readonly (int In, int Out, int Blocks)[] Sizes = [(4224, 6, 1), (1088, 11, 2), (208, 5, 1), (70, 19, 1), (2, 1, 1)];

    /// <summary>Formats by sizes by storage types.</summary>
    public static TheoryData<QuantFormat, int, Storage> Cases()
    {
        var data = new TheoryData<QuantFormat, int, Storage>();
        foreach (QuantFormat format in Formats)
        {
            foreach (Storage storage in StorageExtensions.All)
            {
                for (int size = 0; size < Sizes.Length; size++) data.Add(format, size, storage);
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Gemv_is_the_product_with_what_the_codes_stand_for(QuantFormat format, int size, Storage storage)
    {
        (int inFeatures, int outFeatures, int blocks) = Sizes[size];
        Check(format, 3, false, 0, inFeatures, outFeatures, blocks, storage);
    }

    /// <summary>The two kernels that decoding uses most, at the smallest and the largest batch.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(8)]
    public void Norm_and_gate_and_residual(int rows)
    {
        foreach (QuantFormat format in Formats)
        {
            Check(format, rows, true, 3, 576, 7, 1, Storage.BF16);
            Check(format, rows, false, 2, 1152, 9, 1, Storage.F16);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Dequantised_rows_are_what_the_codes_stand_for(QuantFormat format, int size, Storage storage)
    {
        (int columns, int rows, int blocks) = Sizes[size];
        var matrix = new QuantMatrix(format, 41, rows + 2, columns, 0.1);
        float[] factors = Numbers.Normal(42, rows + 2);
        Kernel kernel = Kernel.Compile("dequantise.cu", storage, matrix.Constant);
        foreach (bool scaled in (bool[])[false, true])
        {
            float[] y = EmulatedDevice.InEveryOrder(run =>
            {
                DeviceArray output = run.Allocate(rows * columns, storage);
                run.Launch(kernel, "dequantise", new Dim3(blocks), 256, 0, matrix.Codes(run), matrix.Scales(run), scaled ? run.Upload(factors) : KernelRun.NullPointer, output, 1, rows, columns);
                return run.Read(output);
            });
            double[] expected = [.. Enumerable.Range(0, rows * columns).Select(i => (double)matrix.Values[i + columns] * (scaled ? factors[1 + (i / columns)] : 1))];
            Numbers.AssertClose(expected, y, storage, i => 3 * Numbers.Unit * Math.Abs(expected[i]), $"dequantise {format} [{rows}, {columns}]");
        }
    }

    /// <summary>Queries of a projection without pages: heads 2 + 2 * 1 of 16; the rest of the kernel is that of stored weights.</summary>
    [Theory]
    [MemberData(nameof(AllFormats))]
    public void Qkv_takes_the_rows_that_turn_together(QuantFormat format)
    {
        const int Rows = 2, In = 320, Heads = 2, KvHeads = 1, HeadDim = 16, PageSize = 4;
        var matrix = new QuantMatrix(format, 51, (Heads + (2 * KvHeads)) * HeadDim, In, 0.1);
        float[] x = Numbers.Normal(52, Rows * In, Storage.BF16), norm = Numbers.Normal(53, In, mean: 1), angles = Numbers.Normal(54, 4 * HeadDim);
        int[] positions = [3, 1], slots = [5, 6];
        float[] Launch(Kernel kernel, Func<KernelRun, DeviceArray> weight, Func<KernelRun, object> scales, Storage storage) => EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray query = run.Allocate(Rows * Heads * HeadDim, storage), keys = run.Upload(new float[2 * PageSize * HeadDim], storage), values = run.Upload(new float[2 * PageSize * HeadDim], storage);
            run.Launch(kernel, "gemv_qkv", new Dim3(2), 256, 32 + (Rows * In * storage.Size()), run.Upload(x, storage), run.Upload(norm), weight(run), scales(run), run.Upload(angles),
                run.Upload<int>(positions), run.Upload<int>(slots), query, keys, values, In, Heads, KvHeads, Epsilon);
            return [.. run.Read(query), .. run.Read(keys), .. run.Read(values)];
        });
        string[] shape = [$"ROWS={Rows}", $"HEAD_DIM={HeadDim}", $"PAGE_SIZE={PageSize}"];
        float[] stored = Launch(Kernel.Compile("gemv_qkv.cu", Storage.F32, shape), run => run.Upload(matrix.Values, Storage.F32), _ => KernelRun.NullPointer, Storage.F32);
        float[] quantised = Launch(Kernel.Compile("gemv_qkv.cu", Storage.F32, [.. shape, matrix.Constant]), matrix.Codes, matrix.Scales, Storage.F32);
        double largest = Numbers.LargestMagnitude(stored);
        Numbers.AssertClose([.. stored.Select(v => (double)v)], quantised, Storage.F32, _ => 60 * Numbers.Unit * largest, $"gemv_qkv {format}");
    }

    /// <summary>A row's answer is the same to the bit whatever it is batched with.</summary>
    [Theory]
    [InlineData(QuantFormat.Q4)]
    [InlineData(QuantFormat.Q8Row)]
    public void A_row_does_not_depend_on_its_batch(QuantFormat format)
    {
        const int Rows = 8, In = 1088, Out = 5;
        float[] x = Numbers.Normal(61, Rows * In, Storage.BF16);
        var matrix = new QuantMatrix(format, 62, Out, In, 0.1);
        float[] together = Launch(Rows, false, 4, x, [], matrix, [], [], In, Out, 1, Storage.BF16);
        for (int row = 0; row < Rows; row += 7)
            Assert.Equal(together.AsSpan(row * Out, Out).ToArray(), Launch(1, false, 4, x.AsSpan(row * In, In).ToArray(), [], matrix, [], [], In, Out, 1, Storage.BF16));
    }

    public static TheoryData<QuantFormat> AllFormats() => [.. Formats];

    private static void Check(QuantFormat format, int rows, bool norm, int epilogue, int inFeatures, int outFeatures, int blocks, Storage storage)
    {
        int weightRows = epilogue == 3 ? 2 * outFeatures : outFeatures;
        float[] x = Numbers.Normal(71, rows * inFeatures, storage), normWeight = norm ? Numbers.Normal(72, inFeatures, mean: 1) : [], bias = Numbers.Normal(73, weightRows);
        var matrix = new QuantMatrix(format, 74, weightRows, inFeatures, 1 / Math.Sqrt(inFeatures));
        float[] residual = epilogue == 2 ? Numbers.Normal(75, rows * outFeatures, storage) : [];
        float[] y = Launch(rows, norm, epilogue, x, normWeight, matrix, bias, residual, inFeatures, outFeatures, blocks, storage);
        (double[] products, double[] errors) = LinearReference.Product(x, inFeatures, normWeight, Epsilon, matrix.Values, storage);
        var expected = new double[rows * outFeatures];
        var slack = new double[expected.Length];
        for (int r = 0; r < rows; r++)
        {
            for (int o = 0; o < outFeatures; o++)
            {
                int at = (r * outFeatures) + o, from = (r * weightRows) + o;
                double v = products[from] + bias[o], error = errors[from] + (4 * Numbers.Unit * Math.Abs(v));
                (expected[at], slack[at]) = epilogue switch
                {
                    2 => (v + residual[at], error + (Numbers.Unit * Math.Abs(v + residual[at]))),
                    3 => LinearReference.SwiGlu(v, error, products[from + outFeatures] + bias[outFeatures + o], errors[from + outFeatures]),
                    _ => (v, error),
                };
            }
        }
        Numbers.AssertClose(expected, y, storage, i => slack[i], $"gemv {format} {rows} x [{outFeatures}, {inFeatures}] epilogue {epilogue}");
    }

    private static float[] Launch(int rows, bool norm, int epilogue, float[] x, float[] normWeight, QuantMatrix matrix, float[] bias, float[] residual, int inFeatures, int outFeatures, int blocks, Storage storage)
    {
        Kernel kernel = Kernel.Compile("gemv.cu", storage, $"ROWS={rows}", $"NORM={(norm ? 1 : 0)}", $"EPILOGUE={epilogue}", matrix.Constant);
        Storage output = epilogue == 4 ? Storage.F32 : storage;
        return EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray y = residual.Length > 0 ? run.Upload(residual, output) : run.Allocate(rows * outFeatures, output);
            run.Launch(kernel, "gemv", new Dim3(blocks), 256, norm ? 32 + (rows * inFeatures * storage.Size()) : 0, run.Upload(x, storage), norm ? run.Upload(normWeight) : KernelRun.NullPointer,
                matrix.Codes(run), matrix.Scales(run), bias.Length > 0 ? run.Upload(bias) : KernelRun.NullPointer, y, inFeatures, outFeatures, Epsilon);
            return run.Read(y);
        });
    }
}
