using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Cpu;

/// <summary>The matrix product: right on every path and type, and a row's bits do not depend on what else is computed.</summary>
public sealed class LinearTests
{
    public static TheoryData<CpuPath> Paths => Workbench.Paths;

    [Theory, MemberData(nameof(Paths))]
    public void Linear_AwkwardShapes_AgreesWithReference(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(1);
        foreach (DType dtype in new[] { DType.Float32, DType.Float16, DType.BFloat16 })
            foreach (int k in new[] { 1, 3, 17, 48, 192 })
                foreach (int n in new[] { 1, 5, 33 })
                    foreach (int m in new[] { 1, 2, 7, 64 })
                    {
                        float[] x = Workbench.Random(random, m * k), w = Workbench.Random(random, n * k), bias = Workbench.Random(random, n);
                        LinearWeight weight = bench.Linear(w, n, dtype, bias);
                        Tensor y = bench.Empty(m, n);
                        bench.Backend.Linear(bench.Matrix(x, m), weight, Activation.None, y);
                        double[] expected = ReferenceOps.Linear(ReferenceOps.Wide(x), m, w, n, bias);
                        double error = Workbench.Error(bench.Get(y), expected);
                        Assert.True(error < 2e-6, $"{dtype} {m}x{n}x{k}: {error}");
                    }
    }

    [Theory, MemberData(nameof(Paths))]
    public void Linear_LongSums_AgreesWithReference(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(2);
        foreach ((int m, int n, int k) in new[] { (1, 70, 1700), (13, 200, 800), (200, 9, 1537), (6, 300, 768), (130, 210, 100), (790, 60, 1600) })
        {
            float[] x = Workbench.Random(random, m * k), w = Workbench.Random(random, n * k);
            Tensor y = bench.Empty(m, n);
            bench.Backend.Linear(bench.Matrix(x, m), bench.Linear(w, n, DType.BFloat16), Activation.None, y);
            double error = Workbench.Error(bench.Get(y), ReferenceOps.Linear(ReferenceOps.Wide(x), m, w, n));
            Assert.True(error < 2e-6, $"{m}x{n}x{k}: {error}");
        }
    }

    [Theory, MemberData(nameof(Paths))]
    public void Linear_GeluAndResidual_AgreeWithReference(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(3);
        foreach (int m in new[] { 1, 5, 23 })
        {
            const int k = 40, n = 37;
            float[] x = Workbench.Random(random, m * k), w = Workbench.Random(random, n * k), bias = Workbench.Random(random, n), scale = Workbench.Random(random, n);
            double[] plain = ReferenceOps.Linear(ReferenceOps.Wide(x), m, w, n, bias);
            Tensor y = bench.Empty(m, n);
            bench.Backend.Linear(bench.Matrix(x, m), bench.Linear(w, n, bias: bias), Activation.Gelu, y);
            Assert.True(Workbench.Error(bench.Get(y), Array.ConvertAll(plain, ReferenceOps.Gelu)) < 1e-6);

            float[] start = Workbench.Random(random, m * n);
            Tensor sum = bench.Matrix(start, m);
            bench.Backend.LinearResidual(bench.Matrix(x, m), bench.Linear(w, n, bias: bias, scale: scale), sum);
            double[] expected = ReferenceOps.Linear(ReferenceOps.Wide(x), m, w, n, bias, scale);
            for (int i = 0; i < expected.Length; i++) expected[i] += start[i];
            Assert.True(Workbench.Error(bench.Get(sum), expected) < 1e-6);
        }
    }

    [Theory, MemberData(nameof(Paths))]
    public void Linear_RowBlocks_EqualOneMatrix(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(4);
        const int k = 33;
        int[] rows = [5, 1, 14];
        float[] all = Workbench.Random(random, rows.Sum() * k);
        var blocks = new List<WeightTensor>();
        int at = 0;
        foreach (int r in rows)
        {
            blocks.Add(bench.Weight(all[(at * k)..((at + r) * k)], DType.Float32, r, k));
            at += r;
        }
        foreach (int m in new[] { 1, 9 })
        {
            Tensor x = bench.Matrix(Workbench.Random(random, m * k), m), y = bench.Empty(m, at), z = bench.Empty(m, at);
            bench.Backend.Linear(x, bench.Backend.LoadLinear(blocks), Activation.None, y);
            bench.Backend.Linear(x, bench.Linear(all, at), Activation.None, z);
            Assert.Equal(bench.Get(z), bench.Get(y));
        }
    }

    [Theory, MemberData(nameof(Paths))]
    public void Linear_EveryRow_HasTheSameBitsAloneAndInABatch(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(5);
        foreach (DType dtype in new[] { DType.Float32, DType.Float16, DType.BFloat16 })
        {
            const int m = 107, n = 203, k = 1555;
            LinearWeight weight = bench.Linear(Workbench.Random(random, n * k), n, dtype, Workbench.Random(random, n));
            Tensor x = bench.Matrix(Workbench.Random(random, m * k), m), y = bench.Empty(m, n);
            bench.Backend.Linear(x, weight, Activation.Gelu, y);
            float[] whole = bench.Get(y);
            foreach (int size in new[] { 1, 2, 3, 4, 5, 6, 7, 11, 25 })
            {
                for (int start = 0; start + size <= m; start += size)
                {
                    Tensor part = bench.Empty(size, n);
                    bench.Backend.Linear(x.Slice(start, size), weight, Activation.Gelu, part);
                    Assert.Equal(whole[(start * n)..((start + size) * n)], bench.Get(part));
                    if (start > 8) break;
                }
            }
        }
    }

    [Fact]
    public void Linear_ThreadsAndPaths_GiveTheSameBits()
    {
        float[]? first = null;
        foreach (CpuPath path in new[] { CpuPath.Avx512, CpuPath.Avx2, CpuPath.Vector128, CpuPath.Scalar })
        {
            if (!CpuPaths.IsSupported(path)) continue;
            foreach (int threads in new[] { 1, 2, 5 })
            {
                using var bench = new Workbench(path, threads);
                var random = new Random(6);
                const int m = 50, n = 230, k = 900;
                Tensor y = bench.Empty(m, n);
                bench.Backend.Linear(bench.Matrix(Workbench.Random(random, m * k), m), bench.Linear(Workbench.Random(random, n * k), n, DType.BFloat16), Activation.Gelu, y);
                float[] values = bench.Get(y);
                first ??= values;
                Assert.Equal(first, values);
            }
        }
    }

    [Fact]
    public void Linear_WrongShapes_AreRefused()
    {
        using var bench = new Workbench(threads: 1);
        LinearWeight weight = bench.Linear(new float[12], 3);
        Tensor x = bench.Empty(2, 4);
        Assert.Throws<ArgumentException>(() => bench.Backend.Linear(x, weight, Activation.None, bench.Empty(2, 4)));
        Assert.Throws<ArgumentException>(() => bench.Backend.Linear(x, weight, Activation.None, bench.Empty(1, 3)));
        Assert.Throws<ArgumentException>(() => bench.Backend.LinearResidual(bench.Empty(2, 5), weight, bench.Empty(2, 3)));
    }

    [Theory, MemberData(nameof(Paths))]
    public void Linear_HalfWeights_KeepInfinityNanAndSubnormals(CpuPath path)
    {
        const int n = 6, k = 1600;
        using var bench = new Workbench(path);
        float[] ones = Enumerable.Repeat(1f, 64 * k).ToArray();
        foreach (int m in new[] { 1, 2, 5, 64 })
            foreach (int at in new[] { 0, 1, 799, k - 1 })
            {
                float[] w = Enumerable.Repeat(1f / (1 << 24), n * k).ToArray(); // the smallest subnormal
                Tensor y = bench.Empty(m, n);
                bench.Backend.Linear(bench.Matrix(ones[..(m * k)], m), bench.Linear(w, n, DType.Float16), Activation.None, y);
                Assert.All(bench.Get(y), value => Assert.Equal(k / (float)(1 << 24), value));

                (w[at], w[k + at], w[(2 * k) + at]) = (float.PositiveInfinity, float.NegativeInfinity, float.NaN);
                w[(3 * k) + at] = 65504; // the largest finite
                bench.Backend.Linear(bench.Matrix(ones[..(m * k)], m), bench.Linear(w, n, DType.Float16), Activation.None, y);
                float[] found = bench.Get(y);
                for (int row = 0; row < m; row++)
                {
                    Assert.Equal([float.PositiveInfinity, float.NegativeInfinity, float.NaN], found[(row * n)..((row * n) + 3)]);
                    Assert.Equal(65504, found[(row * n) + 3], 0.01f);
                    Assert.Equal(k / (float)(1 << 24), found[(row * n) + 4]);
                }
            }
    }

    [Theory, MemberData(nameof(Paths))]
    public void Linear_CutForOtherCaches_HasTheSameBits(CpuPath path)
    {
        float[]? first = null;
        foreach ((int level2, int level3) in new[] { (64, 64), (512, 4096), (1024, 32768), (4096, 65536) })
            foreach (int threads in new[] { 1, 3 })
            {
                const int m = 230, n = 410, k = 1555;
                var random = new Random(6);
                using var bench = new Workbench(path, threads, GemmBlocks.Of(new CpuCaches(level2 << 10, level3 << 10)));
                LinearWeight weight = bench.Linear(Workbench.Random(random, n * k), n, DType.BFloat16, Workbench.Random(random, n));
                Tensor y = bench.Empty(m, n);
                bench.Backend.Linear(bench.Matrix(Workbench.Random(random, m * k), m), weight, Activation.Gelu, y);
                float[] found = bench.Get(y);
                first ??= found;
                Assert.Equal(first, found);
            }
    }
}
