using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Cpu;

/// <summary>The decoder's operations other than attention against the reference, on every path.</summary>
public sealed class LanguageOpsTests
{
    public static TheoryData<CpuPath> Paths => Workbench.Paths;

    [Theory, MemberData(nameof(Paths))]
    public void NormGatedMlpResidual_AgreesWithReference(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(21);
        foreach ((int m, int hidden, int inner) in new[] { (1, 32, 88), (3, 20, 17), (9, 48, 50), (40, 32, 100) })
        {
            float[] x = Workbench.Random(random, m * hidden), norm = Workbench.Random(random, hidden);
            float[] gate = Workbench.Random(random, inner * hidden), up = Workbench.Random(random, inner * hidden), down = Workbench.Random(random, hidden * inner);
            LinearWeight gateUp = bench.Backend.LoadLinear([bench.Weight(gate, DType.BFloat16, inner, hidden), bench.Weight(up, DType.BFloat16, inner, hidden)]);
            LinearWeight downWeight = bench.Linear(down, hidden, DType.BFloat16);
            Tensor t = bench.Matrix(x, m);
            using Workspace workspace = bench.Workspace();
            bench.Backend.NormGatedMlpResidual(t, bench.Norm(norm, null, 1e-5f), gateUp, downWeight, workspace);

            double[] n = ReferenceOps.RmsNorm(ReferenceOps.Wide(x), m, norm, 1e-5);
            double[] g = ReferenceOps.Linear(n, m, gate, inner), u = ReferenceOps.Linear(n, m, up, inner);
            for (int i = 0; i < g.Length; i++) g[i] = ReferenceOps.Silu(g[i]) * u[i];
            double[] y = ReferenceOps.Linear(g, m, down, hidden);
            for (int i = 0; i < y.Length; i++) y[i] += x[i];
            double error = Workbench.Error(bench.Get(t), y);
            Assert.True(error < 3e-6, $"{m}x{hidden}x{inner}: {error}");
        }
    }

    [Theory, MemberData(nameof(Paths))]
    public void NormLogits_WantedRows_AgreeWithReference(CpuPath path)
    {
        using var bench = new Workbench(path);
        var random = new Random(22);
        const int m = 9, hidden = 40, vocabulary = 61;
        float[] x = Workbench.Random(random, m * hidden), norm = Workbench.Random(random, hidden), head = Workbench.Random(random, vocabulary * hidden);
        Tensor logits = bench.Empty(2, vocabulary);
        using Workspace workspace = bench.Workspace();
        bench.Backend.NormLogits(bench.Matrix(x, m), new PagedBatch { TokenCount = m, LogitRows = [8, 3, -1], LogitCount = 2 }, bench.Norm(norm, null, 1e-5f), bench.Linear(head, vocabulary, DType.Float16), logits, workspace);
        double[] all = ReferenceOps.Linear(ReferenceOps.RmsNorm(ReferenceOps.Wide(x), m, norm, 1e-5), m, head, vocabulary);
        double[] expected = [.. all[(8 * vocabulary)..], .. all[(3 * vocabulary)..(4 * vocabulary)]];
        Assert.True(Workbench.Error(bench.Get(logits), expected) < 1e-6);
    }

    [Theory]
    [InlineData(DType.Float32)]
    [InlineData(DType.Float16)]
    [InlineData(DType.BFloat16)]
    public void EmbedTokens_LooksUpRows_AndLeavesNegativeIdsAlone(DType dtype)
    {
        using var bench = new Workbench(threads: 1);
        float[] table = Workbench.Random(new Random(23), 7 * 19);
        EmbeddingTable embedding = bench.Backend.LoadEmbedding(bench.Weight(table, dtype, 7, 19));
        var before = new float[4 * 19];
        Array.Fill(before, 5f);
        Tensor y = bench.Matrix(before, 4);
        bench.Backend.EmbedTokens(embedding, new PagedBatch { TokenIds = [6, -200, 0, 3, 99], TokenCount = 4 }, y);
        float[] five = before[..19];
        Assert.Equal([.. table[(6 * 19)..], .. five, .. table[..19], .. table[(3 * 19)..(4 * 19)]], bench.Get(y));
        string message = Assert.Throws<InvalidInputException>(() => bench.Backend.EmbedTokens(embedding, new PagedBatch { TokenIds = [7], TokenCount = 1 }, bench.Empty(1, 19))).Message;
        Assert.Contains("7", message, StringComparison.Ordinal);
        Assert.Contains("vocabulary of 7", message, StringComparison.Ordinal);
    }

    [Fact]
    public void RopeFrequencies_HavePyTorchBits()
    {
        float[] frequencies = RopeAngles.InverseFrequencies(new RopeParameters(128, 10000));
        byte[] bytes = frequencies.SelectMany(BitConverter.GetBytes).ToArray();
        string hash = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(bytes));
        Assert.Equal("4b659c349432de9f79dd9cb4ee360c56e20be3809e01d4bbccbf2ebeae925c3d", hash);
        Assert.Equal([1.0f, 0.8659643530845642f, 0.7498942017555237f], frequencies[..3]);
        Assert.Equal([0.0001333521504420787f, 0.00011547819303814322f], frequencies[62..]);
    }

    [Theory, MemberData(nameof(Paths))]
    public unsafe void Elementary_Gelu_IsWithinAMillionthOfErf(CpuPath path)
    {
        using var bench = new Workbench(path, threads: 1);
        var x = new float[40001];
        for (int i = 0; i < x.Length; i++) x[i] = -20 + i * 0.001f;
        var y = new float[x.Length];
        fixed (float* px = x, py = y) bench.Backend.Kernels.Apply(1, px, py, x.Length);
        for (int i = 0; i < x.Length; i++)
        {
            double expected = ReferenceOps.Gelu(x[i]);
            Assert.True(Math.Abs(y[i] - expected) <= 1e-6 * Math.Min(1, 0.05 + Math.Abs(expected)) + 3e-7 * Math.Abs(expected), $"gelu({x[i]}) = {y[i]}, not {expected}");
            if (x[i] > -12) Assert.True(Math.Abs(y[i] - expected) <= 1e-5 * Math.Abs(expected), $"gelu({x[i]}) = {y[i]}, not {expected}");
        }
    }

    [Theory, MemberData(nameof(Paths))]
    public unsafe void Elementary_ExpAndSilu_AreWithinAFewRoundings(CpuPath path)
    {
        using var bench = new Workbench(path, threads: 1);
        var x = new float[35001];
        for (int i = 0; i < x.Length; i++) x[i] = -87.3f + i * 0.005f;
        var exp = new float[x.Length];
        var silu = new float[x.Length];
        fixed (float* px = x, pe = exp, ps = silu)
        {
            bench.Backend.Kernels.Apply(0, px, pe, x.Length);
            bench.Backend.Kernels.Apply(2, px, ps, x.Length);
        }
        for (int i = 0; i < x.Length; i++)
        {
            double expected = Math.Exp(Math.Min(x[i], 88.37626f));
            Assert.True(Math.Abs(exp[i] - expected) <= 2e-7 * expected, $"exp({x[i]}) = {exp[i]}, not {expected}");
            expected = ReferenceOps.Silu(x[i]);
            Assert.True(Math.Abs(silu[i] - expected) <= 4e-7 * Math.Abs(expected) + 1e-37, $"silu({x[i]}) = {silu[i]}, not {expected}");
        }
        float[] odd = [float.NegativeInfinity, -1000f, -87.5f, 0f, float.NaN];
        fixed (float* px = odd) bench.Backend.Kernels.Apply(0, px, px, odd.Length);
        Assert.Equal([0f, 0f, 0f, 1f, float.NaN], odd);
    }

    [Theory, MemberData(nameof(Paths))]
    public unsafe void Widening_All65536Values_EqualsTheRuntime(CpuPath path)
    {
        using var bench = new Workbench(path, threads: 1);
        var stored = new ushort[65536];
        for (int i = 0; i < stored.Length; i++) stored[i] = (ushort)i;
        var wide = new float[65536];
        foreach (bool half in new[] { true, false })
        {
            fixed (ushort* from = stored)
            fixed (float* to = wide) bench.Backend.Kernels.Widen((nint)from, half ? DType.Float16 : DType.BFloat16, to, 65536);
            for (int i = 0; i < 65536; i++)
            {
                float expected = half ? (float)BitConverter.UInt16BitsToHalf((ushort)i) : BitConverter.UInt32BitsToSingle((uint)i << 16);
                if (float.IsNaN(expected)) Assert.True(float.IsNaN(wide[i]), $"{i:x4}");
                else Assert.Equal(BitConverter.SingleToInt32Bits(expected), BitConverter.SingleToInt32Bits(wide[i]));
            }
        }
    }
}
