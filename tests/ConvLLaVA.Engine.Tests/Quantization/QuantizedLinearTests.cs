using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Tests.Cpu;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Quantization;

/// <summary>Products with quantised weights on the CPU: right on every path, the same bits on all, and no row depends on its company.</summary>
public sealed class QuantizedLinearTests
{
    public static TheoryData<CpuPath> Paths => Workbench.Paths;

    public static TheoryData<QuantFormat> Formats => QuantizedMatrix.Formats;

    [Theory, MemberData(nameof(Paths))]
    public void Linear_AnyShapeAndFormat_AgreesWithReference(CpuPath path)
    {
        Assert.SkipUnless(CpuPaths.IsSupported(path), $"this machine cannot run {path}");
        Gen<(QuantFormat, int, int, int, int)> cases = from format in Gen.Elements(Enum.GetValues<QuantFormat>())
                                                       from rows in Gen.Choose(1, 15)
                                                       from outputs in Gen.Choose(1, 80)
                                                       from inputs in Gen.Choose(1, 280)
                                                       from seed in Gen.Choose(0, 1 << 20)
                                                       select (format, rows, outputs, inputs, seed);
        Prop.ForAll(cases.ToArbitrary(), test =>
        {
            (QuantFormat format, int m, int n, int k, int seed) = test;
            if (format.IsFourBit()) k += k % 2;
            if (format == QuantFormat.Nf4 && seed % 2 == 0) k = (k + 63) / 64 * 64; // else blocks cross rows
            using var bench = new Workbench(path);
            var random = new Random(seed);
            float[] x = Activations(random, m * k), bias = Workbench.Random(random, n), scale = Workbench.Random(random, n), start = Workbench.Random(random, m * n);
            using QuantizedMatrix matrix = QuantizedMatrix.Encode(format, QuantizedMatrix.Normal(random, n * k), n);
            LinearWeight weight = bench.Backend.LoadLinear([matrix.Weight], bench.Weight(bias, DType.Float32, n), bench.Weight(scale, DType.Float32, n));
            double[] plain = Reference(format, x, m, matrix.Decode(), n, bias, scale);

            Tensor y = bench.Matrix([.. start], m);
            bench.Backend.LinearResidual(bench.Matrix(x, m), weight, y);
            double[] sums = [.. plain.Select((value, i) => value + start[i])];
            Assert.True(Workbench.Error(bench.Get(y), sums) < 3e-6, $"{format} {m}x{n}x{k}: {Workbench.Error(bench.Get(y), sums)}");

            Tensor z = bench.Empty(m, n);
            bench.Backend.Linear(bench.Matrix(x, m), weight, Activation.Gelu, z);
            Assert.True(Workbench.Error(bench.Get(z), Array.ConvertAll(plain, ReferenceOps.Gelu)) < 3e-6);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(path == CpuPath.Scalar ? 60 : 150));
    }

    [Theory, MemberData(nameof(Formats))]
    public void Linear_PathsThreadsAndCompany_GiveTheSameBits(QuantFormat format)
    {
        const int m = 23, n = 109, k = 320;
        var random = new Random(5);
        float[] x = Activations(random, m * k), bias = Workbench.Random(random, n);
        using QuantizedMatrix matrix = QuantizedMatrix.Encode(format, QuantizedMatrix.Normal(random, n * k), n);
        float[]? first = null;
        foreach (CpuPath path in new[] { CpuPath.Avx512, CpuPath.Avx2, CpuPath.Vector128, CpuPath.Scalar }.Where(CpuPaths.IsSupported))
        {
            foreach (int threads in new[] { 1, 2, 5 })
            {
                using var bench = new Workbench(path, threads);
                LinearWeight weight = bench.Backend.LoadLinear([matrix.Weight], bench.Weight(bias, DType.Float32, n));
                Tensor input = bench.Matrix(x, m), y = bench.Empty(m, n);
                bench.Backend.Linear(input, weight, Activation.Gelu, y);
                float[] whole = bench.Get(y);
                first ??= whole;
                Assert.Equal(first, whole);
                foreach (int size in new[] { 1, 2, 3, 4, 5, 6, 7, 9, 13 })
                {
                    for (int start = 0; start + size <= m; start += size)
                    {
                        Tensor part = bench.Empty(size, n);
                        bench.Backend.Linear(input.Slice(start, size), weight, Activation.Gelu, part);
                        Assert.Equal(whole[(start * n)..((start + size) * n)], bench.Get(part));
                    }
                }
            }
        }
    }

    /// <summary>The largest codes against the largest activations, so that a sum of 16 bits that could overflow would.</summary>
    [Theory, MemberData(nameof(Paths))]
    public void Linear_ExtremeCodes_DoNotSaturate(CpuPath path)
    {
        foreach (QuantFormat format in new[] { QuantFormat.Q8, QuantFormat.Q8Row, QuantFormat.Q4, QuantFormat.Q4Group128, QuantFormat.Int8 })
        {
            foreach (byte code in format.IsFourBit() ? new byte[] { 0x00, 0xFF, 0x0F, 0xF0 } : [0x80, 0x81, 0x7F, 0x00])
            {
                foreach (int sign in new[] { 1, -1 })
                {
                    const int m = 7, n = 33, k = 256;
                    using var bench = new Workbench(path);
                    using var matrix = new QuantizedMatrix(format, n, k);
                    matrix.Codes.Fill(code);
                    if (matrix.Layout.ScaleType == DType.Float16) System.Runtime.InteropServices.MemoryMarshal.Cast<byte, Half>(matrix.Scales).Fill((Half)0.25f);
                    else System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(matrix.Scales).Fill(0.25f);
                    float[] x = [.. Enumerable.Range(0, m * k).Select(i => 3f * sign * ((i / k) % 3 == 2 && i % 2 == 1 ? -1 : 1))];
                    Tensor y = bench.Empty(m, n);
                    bench.Backend.Linear(bench.Matrix(x, m), bench.Backend.LoadLinear([matrix.Weight]), Activation.None, y);
                    double[] expected = ReferenceOps.Linear(ReferenceOps.Wide(x), m, matrix.Decode(), n);
                    Assert.True(Workbench.Error(bench.Get(y), expected) < 1e-6, $"{format} code {code:X2} sign {sign}");
                }
            }
        }
    }

    [Theory, MemberData(nameof(Formats))]
    public void Linear_RowBlocks_EqualOneMatrix(QuantFormat format)
    {
        const int k = 128;
        int[] rows = [5, 16, 14, 40];
        using var bench = new Workbench();
        var random = new Random(6);
        List<QuantizedMatrix> parts = [.. rows.Select(r => QuantizedMatrix.Encode(format, QuantizedMatrix.Normal(random, r * k), r))];
        float[] x = Activations(random, 3 * k);
        Tensor input = bench.Matrix(x, 3), y = bench.Empty(3, rows.Sum());
        bench.Backend.Linear(input, bench.Backend.LoadLinear([.. parts.Select(part => part.Weight)]), Activation.None, y);
        float[] whole = bench.Get(y);
        int at = 0;
        foreach (QuantizedMatrix part in parts)
        {
            int n = part.Layout.Rows;
            Tensor z = bench.Empty(3, n);
            bench.Backend.Linear(input, bench.Backend.LoadLinear([part.Weight]), Activation.None, z);
            float[] alone = bench.Get(z);
            for (int t = 0; t < 3; t++) Assert.Equal(alone[(t * n)..((t + 1) * n)], whole[((t * rows.Sum()) + at)..((t * rows.Sum()) + at + n)]);
            at += n;
            part.Dispose();
        }
    }

    [Fact]
    public void Linear_NotANumber_StaysOne()
    {
        foreach (QuantFormat format in Enum.GetValues<QuantFormat>())
        {
            using var bench = new Workbench(threads: 1);
            using QuantizedMatrix matrix = QuantizedMatrix.Encode(format, QuantizedMatrix.Normal(new Random(7), 20 * 64), 20);
            float[] x = new float[2 * 64];
            Array.Fill(x, 1f);
            x[3] = float.NaN;
            Tensor y = bench.Empty(2, 20);
            bench.Backend.Linear(bench.Matrix(x, 2), bench.Backend.LoadLinear([matrix.Weight]), Activation.None, y);
            float[] values = bench.Get(y);
            Assert.All(values[..20], value => Assert.True(float.IsNaN(value)));
            Assert.All(values[20..], value => Assert.True(float.IsFinite(value)));
        }
    }

    [Fact]
    public void LoadLinear_MixedFormats_AreRefused()
    {
        using var bench = new Workbench(threads: 1);
        using QuantizedMatrix a = QuantizedMatrix.Encode(QuantFormat.Q8, new float[64], 1), b = QuantizedMatrix.Encode(QuantFormat.Q4, new float[64], 1);
        Assert.Throws<InvalidInputException>(() => bench.Backend.LoadLinear([a.Weight, b.Weight]));
        Assert.Throws<InvalidInputException>(() => bench.Backend.LoadLinear([a.Weight, bench.Weight(new float[64], DType.Float32, 1, 64)]));
        Assert.Throws<InvalidInputException>(() => bench.Backend.LoadLinear([bench.Weight(new float[64], DType.Float32, 1, 64), a.Weight]));
    }

    private static float[] Activations(Random random, int count)
    {
        float[] x = Workbench.Random(random, count);
        for (int i = 0; i < count; i++)
        {
            if (random.Next(40) == 0) x[i] *= 12; // some are outliers of the original's 8-bit mode
        }
        return x;
    }

    /// <summary>The product in double of decoded weights and of activations as they are quantised, both the slow way.</summary>
    private static double[] Reference(QuantFormat format, float[] x, int m, float[] w, int n, float[] bias, float[] scale)
    {
        int k = x.Length / m;
        double[] seen = ReferenceOps.Wide(x);
        bool floats = format is QuantFormat.Fp8 or QuantFormat.Nf4;
        int group = format == QuantFormat.Int8 ? k : 32;
        for (int t = 0; t < m && !floats; t++)
        {
            for (int start = 0; start < k; start += group)
            {
                int end = Math.Min(k, start + group);
                bool Outlier(int i) => format == QuantFormat.Int8 && Math.Abs(x[(t * k) + i]) >= 6;
                float largest = Enumerable.Range(start, end - start).Where(i => !Outlier(i)).Select(i => Math.Abs(x[(t * k) + i])).DefaultIfEmpty(0).Max();
                for (int i = start; i < end; i++)
                {
                    // Rounded as a float would be, so that ties fall the same way.
                    if (!Outlier(i)) seen[(t * k) + i] = largest == 0 ? 0 : MathF.Round(x[(t * k) + i] * (127 / largest)) * ((double)largest / 127);
                }
            }
        }
        return ReferenceOps.Linear(seen, m, w, n, bias, scale);
    }
}
