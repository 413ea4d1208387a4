using ConvLLaVA.Cuda;
using ConvLLaVA.Kernels.Tests.Vision;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>gemv.cu.</summary>
public sealed class GemvTests
{
    private const float Epsilon = 1e-5f;

    /// <summary>What the kernel does with its sums; the numbers are its constants.</summary>
    private enum Epilogue
    {
        Store,
        Gelu,
        Add,
        SwiGlu,
        Logits,
    }

    /// <summary>(rows, norm, epilogue): every epilogue, the smallest and the largest batch and one that is no power of two.</summary>
    private static readonly (int Rows, int Norm, int Epilogue)[] Variants = [(1, 1, 3), (8, 0, 2), (3, 1, 0), (2, 0, 4), (1, 0, 1)];

    /// <summary>(in, out, blocks): whole rounds, part of a round, less than a step, no packs, one output, an odd number of outputs, fewer
    /// warps than outputs so that they walk on.</summary>
    private static readonly (int In, int Out, int Blocks)[] Sizes = [(1024, 32, 2), (192, 40, 1), (2048, 9, 1), (1100, 6, 2), (8, 1, 1), (99, 17, 1), (1304, 37, 1), (1, 3, 1)];

    /// <summary>Sizes by variants by storage types.</summary>
    public static TheoryData<int, int, Storage> Cases()
    {
        var data = new TheoryData<int, int, Storage>();
        foreach (Storage storage in StorageExtensions.All)
        {
            for (int variant = 0; variant < Variants.Length; variant++)
            {
                for (int size = 0; size < Sizes.Length; size++) data.Add(variant, size, storage);
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Gemv_is_the_definition(int variant, int size, Storage storage)
    {
        (int rows, int norm, int epilogue) = Variants[variant];
        (int inFeatures, int outFeatures, int blocks) = Sizes[size];
        Check(rows, norm == 1, (Epilogue)epilogue, inFeatures, outFeatures, blocks, withBias: size % 2 == 0, storage);
    }

    [Fact]
    public void Gemv_of_any_size()
    {
        var sizes = from inFeatures in Gen.Choose(1, 700)
                    from outFeatures in Gen.Choose(1, 40)
                    from blocks in Gen.Choose(1, 3)
                    from storage in Gen.Elements(StorageExtensions.All)
                    select (inFeatures, outFeatures, blocks, storage);
        Prop.ForAll(sizes.ToArbitrary(), size => Check(3, true, Epilogue.Store, size.inFeatures, size.outFeatures, size.blocks, true, size.storage))
            .Check(Config.QuickThrowOnFailure.WithMaxTest(20));
    }

    /// <summary>A row's answer is the same to the bit whatever it is batched with, and whatever the grid is.</summary>
    [Theory]
    [InlineData(Storage.F32, 200)]
    [InlineData(Storage.F16, 1032)]
    [InlineData(Storage.BF16, 77)]
    public void A_row_does_not_depend_on_its_batch(Storage storage, int inFeatures)
    {
        const int Rows = 8, OutFeatures = 21;
        float[] x = Numbers.Normal(61, Rows * inFeatures, storage), weight = Numbers.Normal(62, OutFeatures * inFeatures, storage, scale: 0.1), norm = Numbers.Normal(63, inFeatures, mean: 1);
        float[] together = Launch(Rows, true, Epilogue.Logits, x, norm, weight, [], [], inFeatures, OutFeatures, 2, storage);
        for (int row = 0; row < Rows; row++)
        {
            float[] alone = Launch(1, true, Epilogue.Logits, x.AsSpan(row * inFeatures, inFeatures).ToArray(), norm, weight, [], [], inFeatures, OutFeatures, 1, storage);
            Assert.Equal(together.AsSpan(row * OutFeatures, OutFeatures).ToArray(), alone);
        }
        float[] three = Launch(3, true, Epilogue.Logits, x.AsSpan(5 * inFeatures, 3 * inFeatures).ToArray(), norm, weight, [], [], inFeatures, OutFeatures, 1, storage);
        Assert.Equal(together.AsSpan(5 * OutFeatures).ToArray(), three);
    }

    private static void Check(int rows, bool norm, Epilogue epilogue, int inFeatures, int outFeatures, int blocks, bool withBias, Storage storage)
    {
        int weightRows = epilogue == Epilogue.SwiGlu ? 2 * outFeatures : outFeatures;
        float[] x = Numbers.Normal(71, rows * inFeatures, storage), weight = Numbers.Normal(72, weightRows * inFeatures, storage, scale: 1 / Math.Sqrt(inFeatures));
        float[] normWeight = norm ? Numbers.Normal(73, inFeatures, mean: 1) : [], bias = withBias ? Numbers.Normal(74, weightRows) : [];
        Storage output = epilogue == Epilogue.Logits ? Storage.F32 : storage;
        float[] residual = epilogue == Epilogue.Add ? Numbers.Normal(75, rows * outFeatures, output) : [];
        float[] y = Launch(rows, norm, epilogue, x, normWeight, weight, bias, residual, inFeatures, outFeatures, blocks, storage);

        (double[] products, double[] errors) = LinearReference.Product(x, inFeatures, normWeight, Epsilon, weight, storage);
        var expected = new double[rows * outFeatures];
        var slack = new double[rows * outFeatures];
        for (int r = 0; r < rows; r++)
        {
            for (int o = 0; o < outFeatures; o++)
            {
                int at = (r * outFeatures) + o;
                double v = products[(r * weightRows) + o] + (withBias ? bias[o] : 0.0), error = errors[(r * weightRows) + o] + (4 * Numbers.Unit * Math.Abs(v));
                (expected[at], slack[at]) = epilogue switch
                {
                    Epilogue.Gelu => (VisionReference.Gelu(v), (1.2 * error) + (8 * Numbers.Unit * Math.Abs(v))),
                    Epilogue.Add => (v + residual[at], error + (Numbers.Unit * Math.Abs(v + residual[at]))),
                    Epilogue.SwiGlu => LinearReference.SwiGlu(v, error, products[(r * weightRows) + outFeatures + o] + (withBias ? bias[outFeatures + o] : 0.0), errors[(r * weightRows) + outFeatures + o]),
                    _ => (v, error),
                };
            }
        }
        Numbers.AssertClose(expected, y, output, i => slack[i], $"gemv {rows} x [{outFeatures}, {inFeatures}] {epilogue}{(norm ? " with norm" : "")}{(withBias ? " with bias" : "")}");
    }

    private static float[] Launch(int rows, bool norm, Epilogue epilogue, float[] x, float[] normWeight, float[] weight, float[] bias, float[] residual,
        int inFeatures, int outFeatures, int blocks, Storage storage)
    {
        Kernel kernel = Kernel.Compile("gemv.cu", storage, $"ROWS={rows}", $"NORM={(norm ? 1 : 0)}", $"EPILOGUE={(int)epilogue}");
        Storage output = epilogue == Epilogue.Logits ? Storage.F32 : storage;
        int shared = norm ? 32 + (rows * inFeatures * storage.Size()) : 0;
        return EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray y = residual.Length > 0 ? run.Upload(residual, output) : run.Allocate(rows * outFeatures, output);
            run.Launch(kernel, "gemv", new Dim3(blocks), 256, shared, run.Upload(x, storage), norm ? run.Upload(normWeight) : KernelRun.NullPointer,
                run.Upload(weight, storage), KernelRun.NullPointer, bias.Length > 0 ? run.Upload(bias) : KernelRun.NullPointer, y, inFeatures, outFeatures, Epsilon);
            return run.Read(y);
        });
    }
}
