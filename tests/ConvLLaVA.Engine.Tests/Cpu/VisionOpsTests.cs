using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Cpu;

/// <summary>The encoder's operations against the reference, on every path.</summary>
public sealed class VisionOpsTests
{
    private static readonly int[] Channels = [3, 8, 20, 64, 192];
    private static readonly (int Height, int Width)[] Sizes = [(1, 1), (1, 5), (7, 7), (12, 9), (3, 25)];

    public static TheoryData<CpuPath> Paths => Workbench.Paths;

    [Theory, MemberData(nameof(Paths))]
    public void DepthwiseConvNorm_AgreesWithReference(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(11);
        foreach (int c in Channels)
            foreach ((int h, int w) in Sizes)
            {
                const int images = 2;
                float[] x = Workbench.Random(random, images * h * w * c), filter = Workbench.Random(random, c * 49), bias = Workbench.Random(random, c);
                float[] gamma = Workbench.Random(random, c), beta = Workbench.Random(random, c);
                DepthwiseWeight weight = bench.Backend.LoadDepthwise(bench.Weight(filter, DType.BFloat16, c, 1, 7, 7), bench.Weight(bias, DType.Float32, c));
                Tensor y = bench.Empty(images * h * w, c);
                bench.Backend.DepthwiseConvNorm(bench.Matrix(x, images * h * w), new Grid(images, h, w), weight, bench.Norm(gamma, beta, 1e-6f), y);
                double[] conv = ReferenceOps.Depthwise(ReferenceOps.Wide(x), images, h, w, c, filter, bias);
                double error = Workbench.Error(bench.Get(y), ReferenceOps.LayerNorm(conv, images * h * w, gamma, beta, 1e-6));
                Assert.True(error < 3e-6, $"C={c} {h}x{w}: {error}");
            }
    }

    [Fact]
    public void DepthwiseConvNorm_PathsThreadsAndBatch_GiveTheSameBits()
    {
        float[]? first = null;
        foreach (CpuPath path in new[] { CpuPath.Avx512, CpuPath.Avx2, CpuPath.Vector128, CpuPath.Scalar })
        {
            if (!CpuPaths.IsSupported(path)) continue;
            foreach (int threads in new[] { 1, 2 })
            {
                using var bench = new Workbench(path, threads);
                var random = new Random(12);
                const int c = 84, h = 9, w = 21;
                Tensor x = bench.Matrix(Workbench.Random(random, 2 * h * w * c), 2 * h * w), y = bench.Empty(2 * h * w, c), alone = bench.Empty(h * w, c);
                DepthwiseWeight weight = bench.Backend.LoadDepthwise(
                    bench.Weight(Workbench.Random(random, c * 49), DType.Float32, c, 1, 7, 7), bench.Weight(Workbench.Random(random, c), DType.Float32, c));
                NormWeight norm = bench.Norm(Workbench.Random(random, c), Workbench.Random(random, c), 1e-6f);
                bench.Backend.DepthwiseConvNorm(x, new Grid(2, h, w), weight, norm, y);
                bench.Backend.DepthwiseConvNorm(x.Slice(h * w, h * w), new Grid(1, h, w), weight, norm, alone);
                float[] values = bench.Get(y);
                first ??= values;
                Assert.Equal(first, values);
                Assert.Equal(values[(h * w * c)..], bench.Get(alone));
            }
        }
    }

    [Theory, MemberData(nameof(Paths))]
    public void LayerNorm_LargeMeans_KeepsPrecision(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(13);
        foreach (int c in new[] { 1, 3, 16, 50, 768, 3072 })
        {
            float[] x = Workbench.Random(random, 5 * c), gamma = Workbench.Random(random, c), beta = Workbench.Random(random, c);
            for (int i = 0; i < x.Length; i++) x[i] += 100f * (i / c);
            Tensor t = bench.Matrix(x, 5);
            bench.Backend.LayerNorm(t, bench.Norm(gamma, beta, 1e-6f), t);
            double error = Workbench.Error(bench.Get(t), ReferenceOps.LayerNorm(ReferenceOps.Wide(x), 5, gamma, beta, 1e-6));
            // The mean is 400 standard deviations away in the last row: float inputs, not the statistics, limit what can be had.
            Assert.True(error < 4e-5, $"C={c}: {error}");
            Tensor first = bench.Matrix(x[..c], 1), plain = bench.Empty(1, c);
            bench.Backend.LayerNorm(first, bench.Norm(gamma, beta, 1e-6f), plain);
            error = Workbench.Error(bench.Get(plain), ReferenceOps.LayerNorm(ReferenceOps.Wide(x[..c]), 1, gamma, beta, 1e-6));
            Assert.True(error < 1e-6, $"C={c}: {error}");
        }
    }

    [Theory, MemberData(nameof(Paths))]
    public void GatherPatchesAndLinear_AreTheStemConvolution(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(14);
        const int h = 13, w = 18, patch = 4, outs = 10;
        var pictures = new[] { new byte[h * w * 3], new byte[h * w * 3] };
        foreach (byte[] p in pictures) random.NextBytes(p);
        float[] lut = Workbench.Random(random, 768), filter = Workbench.Random(random, outs * 48), bias = Workbench.Random(random, outs);
        LinearWeight weight = bench.Backend.LoadPatchConvolution(bench.Weight(filter, DType.BFloat16, outs, 3, 4, 4), bench.Weight(bias, DType.Float32, outs));
        const int rows = 2 * (h / patch) * (w / patch);
        Tensor patches = bench.Empty(rows, 48), y = bench.Empty(rows, outs);
        bench.Backend.GatherPatches(new ImageBatch(pictures, h, w, lut), patch, patches);
        bench.Backend.Linear(patches, weight, Activation.None, y);
        double[] x = pictures.SelectMany(p => p.Select((v, i) => (double)lut[i % 3 * 256 + v])).ToArray();
        double error = Workbench.Error(bench.Get(y), ReferenceOps.PatchConvolution(x, 2, h, w, 3, filter, bias, patch));
        Assert.True(error < 1e-6, $"{error}");
    }

    [Theory, MemberData(nameof(Paths))]
    public void NormGatherAndLinear_AreTheDownsamplingLayer(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(15);
        foreach ((int h, int w, int c) in new[] { (2, 2, 3), (7, 5, 8), (6, 9, 20), (4, 4, 48), (1, 4, 8) })
        {
            const int images = 2, outs = 7;
            float[] x = Workbench.Random(random, images * h * w * c), gamma = Workbench.Random(random, c), beta = Workbench.Random(random, c);
            float[] filter = Workbench.Random(random, outs * c * 4), bias = Workbench.Random(random, outs);
            var grid = new Grid(images, h, w);
            int rows = grid.Downsampled(2).Rows;
            Tensor gathered = bench.Empty(rows, 4 * c), y = bench.Empty(rows, outs);
            bench.Backend.NormGather(bench.Matrix(x, grid.Rows), grid, bench.Norm(gamma, beta, 1e-6f), gathered);
            bench.Backend.Linear(gathered,
                bench.Backend.LoadPatchConvolution(bench.Weight(filter, DType.Float32, outs, c, 2, 2), bench.Weight(bias, DType.Float32, outs)), Activation.None, y);
            double[] normed = ReferenceOps.LayerNorm(ReferenceOps.Wide(x), grid.Rows, gamma, beta, 1e-6);
            double error = Workbench.Error(bench.Get(y), ReferenceOps.PatchConvolution(normed, images, h, w, c, filter, bias, 2));
            Assert.True(error < 3e-6, $"{h}x{w}x{c}: {error}");
        }
    }
}
