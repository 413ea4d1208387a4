using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Tests.Cpu;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Quantization;

/// <summary>The formats themselves: what a weight may lose, and that the fast encoder writes the slow one's bytes.</summary>
public sealed unsafe class EncoderTests
{
    public static TheoryData<QuantFormat> Formats => QuantizedMatrix.Formats;

    [Theory, MemberData(nameof(Formats))]
    public void FastEncoder_GivesTheReferencesBytes(QuantFormat format)
    {
        Gen<(int, int, int, int)> cases = from rows in Gen.Choose(1, 40) from columns in Gen.Choose(1, 300) from seed in Gen.Choose(0, 1 << 20) from type in Gen.Choose(0, 2) select (rows, columns, seed, type);
        Prop.ForAll(cases.ToArbitrary(), test =>
        {
            (int rows, int columns, int seed, int type) = test;
            if (format.IsFourBit()) columns *= 2;
            using var bench = new Workbench(threads: 1);
            float[] values = QuantizedMatrix.Normal(new Random(seed), rows * columns);
            if (seed % 5 == 0) Array.Clear(values, 0, Math.Min(values.Length, 130)); // whole groups of zeros
            WeightTensor weight = bench.Weight(values, (DType)type, rows, columns);
            using QuantizedMatrix expected = QuantizedMatrix.Encode(format, values, rows);
            QuantizedBytes actual = QuantEncoder.Encode(weight, expected.Layout, 2);
            try
            {
                Assert.True(expected.Codes.SequenceEqual(new ReadOnlySpan<byte>((void*)actual.Codes, expected.Codes.Length)), "codes differ");
                Assert.True(expected.Scales.SequenceEqual(new ReadOnlySpan<byte>((void*)actual.Scales, expected.Scales.Length)), "scales differ");
                Assert.True(expected.AbsMax.SequenceEqual(new ReadOnlySpan<float>((void*)actual.AbsMax, expected.AbsMax.Length)), "second-level scales differ");
                Assert.Equal(expected.Offset, actual.Offset);
            }
            finally
            {
                actual.Owner!.Dispose();
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(60));
    }

    [Theory, MemberData(nameof(Formats))]
    public void RoundTrip_ErrsByNoMoreThanAStep(QuantFormat format)
    {
        var random = new Random(3);
        foreach (int columns in new[] { 2, 30, 64, 128, 190, 512 })
        {
            const int rows = 9;
            float[] values = QuantizedMatrix.Normal(random, rows * columns);
            using QuantizedMatrix matrix = QuantizedMatrix.Encode(format, values, rows);
            float[] decoded = matrix.Decode();
            int group = format.GroupSize();
            for (int i = 0; i < values.Length; i++)
            {
                // Blocks of nf4 run along the flattened matrix.
                int start = format == QuantFormat.Nf4 ? i / 64 * 64 : group == 0 ? i / columns * columns : (i / columns * columns) + (i % columns / group * group);
                int end = format == QuantFormat.Nf4 ? Math.Min(values.Length, start + 64) : group == 0 ? start + columns : Math.Min(((i / columns) + 1) * columns, start + group);
                float largest = values[start..end].Max(MathF.Abs);
                double bound = format switch
                {
                    QuantFormat.Q8 => largest / 127 * 0.5 * 1.001,
                    QuantFormat.Q8Row or QuantFormat.Int8 => largest / 127 * 0.50001,
                    QuantFormat.Q4 or QuantFormat.Q4Group128 => largest / 7 * 1.5, // the scale is chosen for the sum, a single weight may be cut off
                    QuantFormat.Fp8 => Math.Max(Math.Abs(values[i]) / 16, largest / 448 * Math.Pow(2, -10)) * 1.0001,
                    _ => (largest * 0.153) + (0.02 * values.Max(MathF.Abs)), // half of the widest gap, and the scale's own error
                };
                Assert.True(Math.Abs(values[i] - decoded[i]) <= bound + 1e-12, $"{format} [{rows}, {columns}] element {i}: {values[i]} became {decoded[i]}");
            }
        }
    }

    [Theory, InlineData(32), InlineData(128), InlineData(17)]
    public void Q4_ScaleIsCloseToTheBestThereIs(int count)
    {
        var random = new Random(4);
        double ours = 0, best = 0;
        for (int repeat = 0; repeat < 20; repeat++)
        {
            float[] group = QuantizedMatrix.Normal(random, count);
            ours += Error(group, (float)Q4Search.Scale(group));
            float largest = group.Max(MathF.Abs);
            double least = double.PositiveInfinity;
            // Every float16 that could be the scale, of both signs.
            for (int bits = 1; bits < 0x7C00; bits++)
            {
                float scale = (float)BitConverter.UInt16BitsToHalf((ushort)bits);
                if (scale < largest / 12 || scale > largest / 5) continue;
                least = Math.Min(least, Math.Min(Error(group, scale), Error(group, -scale)));
            }
            best += least;
        }
        Assert.True(ours <= best * 1.06, $"{ours} against {best}");

        static double Error(float[] group, float scale)
            => group.Sum(weight => Math.Pow(weight - (Math.Clamp(Math.Round((double)weight / scale), -8, 7) * scale), 2));
    }

    [Fact]
    public void Float8_EveryCode_SurvivesARoundTrip()
    {
        for (int code = 0; code < 256; code++)
        {
            float value = Float8.ToSingle((byte)code);
            if ((code & 0x7F) == 0x7F) Assert.True(float.IsNaN(value));
            else Assert.Equal(code, Float8.FromSingle(value));
        }
        Assert.Equal(448, Float8.ToSingle(Float8.FromSingle(1e9f)));
        Assert.Equal(MathF.ScaleB(1, -9), Float8.ToSingle(1));
        Assert.Equal(0x10, Float8.FromSingle((Float8.ToSingle(0x10) + Float8.ToSingle(0x11)) / 2)); // a tie goes to the even code
        Assert.Equal(0x12, Float8.FromSingle((Float8.ToSingle(0x11) + Float8.ToSingle(0x12)) / 2));
        Assert.Equal(0, Float8.FromSingle(MathF.ScaleB(1, -10)));
    }

    [Fact]
    public void Nf4_Tables_AreAscendingAndComplete()
    {
        Assert.Equal(16, Nf4.Values.Length);
        Assert.Equal(256, Nf4.ScaleMap.Length);
        for (int i = 1; i < 256; i++) Assert.True(Nf4.ScaleMap[i] > Nf4.ScaleMap[i - 1]);
        Assert.Equal(1f, Nf4.ScaleMap[255]);
        Assert.Equal(0.9929687f, Nf4.ScaleMap[254], 6); // the middle of the last of 64 parts of 0.1..1
        Assert.Equal(-0.9929687f, Nf4.ScaleMap[0], 6);
        Assert.Equal(0f, Nf4.ScaleMap[127]);
        for (int i = 0; i < 16; i++) Assert.Equal(i, Nf4.Nearest(Nf4.Values, Nf4.Values[i]));
    }

    [Theory, MemberData(nameof(Formats))]
    public void Encode_WeightThatIsNotFinite_IsRefused(QuantFormat format)
    {
        using var bench = new Workbench(threads: 1);
        foreach (float bad in new[] { float.NaN, float.PositiveInfinity })
        {
            float[] values = new float[128];
            values[77] = bad;
            WeightTensor weight = bench.Weight(values, DType.Float32, 2, 64);
            var error = Assert.Throws<InvalidInputException>(() => QuantEncoder.Encode(weight, new QuantLayout(format, 2, 64), 1));
            Assert.Contains("test.weight", error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Names_ComeBack()
    {
        foreach (QuantFormat format in Enum.GetValues<QuantFormat>()) Assert.Equal(format, QuantFormats.TryParse(format.Name()));
        Assert.Null(QuantFormats.TryParse("q5"));
        Assert.Null(QuantFormats.TryParse(null));
    }
}
