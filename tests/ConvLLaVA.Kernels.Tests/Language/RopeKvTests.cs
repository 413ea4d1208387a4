using ConvLLaVA.Cuda;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>Rotation of queries and keys, and the way of keys and values into their pages, against double precision.</summary>
public sealed class RopeKvTests
{
    private const int PageSize = 16, Positions = 40;

    [Theory]
    [InlineData(Storage.F16, 64, 5, 4, 1)]
    [InlineData(Storage.BF16, 48, 3, 2, 2)]
    [InlineData(Storage.BF16, 128, 1, 3, 1)]
    [InlineData(Storage.F32, 8, 7, 8, 4)]
    [InlineData(Storage.F16, 8, 4, 2, 1)]
    [InlineData(Storage.F32, 20, 2, 1, 1)]
    public void Equals_rotation_in_double_precision(Storage storage, int headDim, int tokens, int heads, int kvHeads)
        => Check(storage, headDim, tokens, heads, kvHeads, seed: tokens, everyOrder: true);

    [Fact]
    public void Any_shape()
    {
        EmulatedDevice.SkipWithout();
        var shapes = from tokens in Gen.Choose(1, 20)
                     from kvHeads in Gen.Choose(1, 4)
                     from queries in Gen.Choose(1, 3)
                     from narrow in Gen.Elements(true, false)
                     from seed in Gen.Choose(0, 1000)
                     select (tokens, kvHeads, heads: queries * kvHeads, narrow, seed);
        Prop.ForAll(shapes.ToArbitrary(), shape =>
            Check(shape.narrow ? Storage.F16 : Storage.BF16, shape.narrow ? 8 : 48, shape.tokens, shape.heads, shape.kvHeads, shape.seed, everyOrder: false))
            .Check(Config.QuickThrowOnFailure.WithMaxTest(20));
    }

    private static void Check(Storage storage, int headDim, int tokens, int heads, int kvHeads, int seed, bool everyOrder)
    {
        var random = new Random(seed);
        int pages = tokens / 2 + 2, half = headDim / 2, pageElements = kvHeads * PageSize * headDim, columns = (heads + 2 * kvHeads) * headDim;
        float[] qkv = Numbers.Normal(seed, tokens * columns, storage), table = new float[Positions * headDim];
        for (int p = 0; p < Positions; p++)
        {
            for (int i = 0; i < half; i++)
            {
                double angle = p * Math.Pow(10000, -2.0 * i / headDim);
                (table[p * headDim + i], table[p * headDim + half + i]) = ((float)Math.Cos(angle), (float)Math.Sin(angle));
            }
        }
        int[] positions = [.. Enumerable.Range(0, tokens).Select(_ => random.Next(Positions))];
        int[] slots = [.. Enumerable.Range(0, pages * PageSize)];
        random.Shuffle(slots);

        Func<KernelRun, float[]> rotate = run =>
        {
            DeviceArray query = run.Allocate(tokens * heads * headDim, storage);
            DeviceArray keys = run.Allocate(pages * pageElements, storage), values = run.Allocate(pages * pageElements, storage);
            int width = half % storage.Pack() == 0 ? storage.Pack() : 1, items = (heads + kvHeads) * half / width + kvHeads * headDim / width;
            run.Launch(Kernel.Compile("rope_kv.cu", storage, $"HEAD_DIM={headDim}", $"PAGE_SIZE={PageSize}"), "rope_kv", new Dim3((items + 255) / 256, tokens), 256, 0,
                run.Upload(qkv, storage), run.Upload(table), run.Upload<int>(positions), run.Upload<int>(slots.AsSpan(0, tokens)), query, keys, values, tokens, heads, kvHeads);
            return [.. run.Read(query), .. run.Read(keys), .. run.Read(values)];
        };
        float[] result = everyOrder ? EmulatedDevice.InEveryOrder(rotate) : EmulatedDevice.Run(rotate);
        int firstKey = tokens * heads * headDim, firstValue = firstKey + pages * pageElements;

        var written = new HashSet<int>();
        for (int t = 0; t < tokens; t++)
        {
            for (int h = 0; h < heads + kvHeads; h++)
            {
                int from = t * columns + h * headDim, to = h < heads ? (t * heads + h) * headDim : firstKey + InPage(slots[t], h - heads);
                for (int i = 0; i < half; i++)
                {
                    double a = qkv[from + i], b = qkv[from + half + i], cosine = table[positions[t] * headDim + i], sine = table[positions[t] * headDim + half + i];
                    Near(a * cosine - b * sine, result[to + i], Math.Abs(a) + Math.Abs(b));
                    Near(b * cosine + a * sine, result[to + half + i], Math.Abs(a) + Math.Abs(b));
                }
            }
            for (int h = 0; h < kvHeads; h++)
            {
                int to = InPage(slots[t], h);
                for (int d = 0; d < headDim; d++)
                {
                    Assert.Equal(qkv[t * columns + (heads + kvHeads + h) * headDim + d], result[firstValue + to + d]);
                    written.Add(to + d);
                }
            }
        }
        for (int i = 0; i < pages * pageElements; i++) // nobody else's slot was touched
        {
            if (!written.Contains(i)) Assert.True(float.IsNaN(result[firstKey + i]) && float.IsNaN(result[firstValue + i]));
        }

        int InPage(int slot, int head) => ((slot / PageSize * kvHeads + head) * PageSize + slot % PageSize) * headDim;

        // One rounding to the storage type, and two fp32 products and their sum before it.
        void Near(double expected, float actual, double size)
        {
            double before = 3 * Numbers.Unit * size;
            Assert.True(Math.Abs(actual - expected) <= before + storage.HalfUlp(Math.Abs(expected) + before), $"{actual} for {expected}");
        }
    }
}
