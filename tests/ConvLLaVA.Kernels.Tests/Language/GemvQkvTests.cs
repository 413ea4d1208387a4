using ConvLLaVA.Cuda;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>gemv_qkv.cu.</summary>
public sealed class GemvQkvTests
{
    private const float Epsilon = 1e-5f;

    /// <summary>(rows, in, heads, kv_heads, head_dim, page_size, blocks): the demo model's shape, grouped heads, an input without packs.</summary>
    public static TheoryData<int, int, int, int, int, int, int, Storage> Cases()
    {
        var data = new TheoryData<int, int, int, int, int, int, int, Storage>();
        foreach (Storage storage in StorageExtensions.All)
        {
            data.Add(1, 192, 4, 4, 48, 16, 2, storage);
            data.Add(8, 264, 4, 2, 16, 4, 3, storage);
            data.Add(3, 75, 2, 1, 16, 4, 1, storage);
        }
        data.Add(2, 1024, 2, 2, 128, 16, 4, Storage.BF16);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Qkv_are_normalised_projected_turned_and_stored(int rows, int inFeatures, int heads, int kvHeads, int headDim, int pageSize, int blocks, Storage storage)
    {
        const int Pages = 5, Positions = 40;
        int half = headDim / 2, outputs = (heads + (2 * kvHeads)) * headDim, pageElements = kvHeads * pageSize * headDim;
        float[] x = Numbers.Normal(81, rows * inFeatures, storage), normWeight = Numbers.Normal(82, inFeatures, mean: 1);
        float[] weight = Numbers.Normal(83, outputs * inFeatures, storage, scale: 1 / Math.Sqrt(inFeatures));
        var cosSin = new float[Positions * headDim];
        for (int p = 0; p < Positions; p++)
        {
            for (int i = 0; i < half; i++)
            {
                double angle = p * Math.Pow(10000, -(double)i / half);
                cosSin[(p * headDim) + i] = (float)Math.Cos(angle);
                cosSin[(p * headDim) + half + i] = (float)Math.Sin(angle);
            }
        }
        // Every row in a slot of its own, pages out of order; the positions have nothing to do with them.
        int[] positions = [.. Enumerable.Range(0, rows).Select(r => ((r * 17) + 5) % Positions)];
        int[] slots = [.. Enumerable.Range(0, rows).Select(r => ((4 - (r % 4)) * pageSize) + ((r / 4) + (r * 3)) % pageSize)];
        Assert.Equal(rows, slots.Distinct().Count());
        float[] before = Numbers.Normal(84, 2 * Pages * pageElements, storage);

        Kernel kernel = Kernel.Compile("gemv_qkv.cu", storage, $"ROWS={rows}", $"HEAD_DIM={headDim}", $"PAGE_SIZE={pageSize}");
        float[] all = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray query = run.Allocate(rows * heads * headDim, storage);
            DeviceArray keys = run.Upload(before.AsSpan(0, Pages * pageElements), storage), values = run.Upload(before.AsSpan(Pages * pageElements), storage);
            run.Launch(kernel, "gemv_qkv", new Dim3(blocks), 256, 32 + (rows * inFeatures * storage.Size()), run.Upload(x, storage), run.Upload(normWeight),
                run.Upload(weight, storage), KernelRun.NullPointer, run.Upload(cosSin), run.Upload<int>(positions), run.Upload<int>(slots), query, keys, values, inFeatures, heads, kvHeads, Epsilon);
            return [.. run.Read(query), .. run.Read(keys), .. run.Read(values)];
        });

        (double[] products, double[] errors) = LinearReference.Product(x, inFeatures, normWeight, Epsilon, weight, storage);
        int querySize = rows * heads * headDim;
        var expected = new double[querySize + before.Length];
        var slack = new double[expected.Length];
        for (int i = 0; i < before.Length; i++) expected[querySize + i] = before[i];
        for (int r = 0; r < rows; r++)
        {
            for (int head = 0; head < heads + (2 * kvHeads); head++)
            {
                int from = (r * outputs) + (head * headDim), to;
                if (head < heads)
                {
                    to = ((r * heads) + head) * headDim;
                }
                else
                {
                    bool key = head < heads + kvHeads;
                    int kvHead = head - heads - (key ? 0 : kvHeads);
                    to = querySize + (key ? 0 : Pages * pageElements) + (((((slots[r] / pageSize) * kvHeads) + kvHead) * pageSize) + (slots[r] % pageSize)) * headDim;
                }
                for (int i = 0; i < half; i++)
                {
                    double low = products[from + i], high = products[from + half + i], error = errors[from + i] + errors[from + half + i];
                    double cosine = cosSin[(positions[r] * headDim) + i], sine = cosSin[(positions[r] * headDim) + half + i];
                    bool turned = head < heads + kvHeads;
                    expected[to + i] = turned ? (low * cosine) - (high * sine) : low;
                    expected[to + half + i] = turned ? (high * cosine) + (low * sine) : high;
                    slack[to + i] = slack[to + half + i] = error + (6 * Numbers.Unit * (Math.Abs(low) + Math.Abs(high)));
                }
            }
        }
        Numbers.AssertClose(expected, all, storage, i => slack[i], $"gemv_qkv {rows} rows, {inFeatures} -> {heads}+2*{kvHeads} heads of {headDim}");
    }

    [Fact]
    public void A_row_does_not_depend_on_its_batch()
    {
        const int Rows = 4, In = 136, Heads = 2, KvHeads = 1, HeadDim = 16, PageSize = 4;
        float[] x = Numbers.Normal(91, Rows * In, Storage.BF16), norm = Numbers.Normal(92, In, mean: 1), weight = Numbers.Normal(93, (Heads + (2 * KvHeads)) * HeadDim * In, Storage.BF16, scale: 0.1);
        float[] cosSin = Numbers.Normal(94, 8 * HeadDim);
        float[] Launch(int rows, ReadOnlySpan<float> part, ReadOnlySpan<int> positions)
        {
            float[] input = part.ToArray();
            int[] where = positions.ToArray(), slots = [.. where.Select(p => p + PageSize)];
            Kernel kernel = Kernel.Compile("gemv_qkv.cu", Storage.BF16, $"ROWS={rows}", $"HEAD_DIM={HeadDim}", $"PAGE_SIZE={PageSize}");
            return EmulatedDevice.InEveryOrder(run =>
            {
                DeviceArray query = run.Allocate(rows * Heads * HeadDim, Storage.BF16), pages = run.Allocate(3 * PageSize * HeadDim, Storage.BF16), others = run.Allocate(3 * PageSize * HeadDim, Storage.BF16);
                run.Launch(kernel, "gemv_qkv", new Dim3(2), 256, 32 + (rows * In * 2), run.Upload(input, Storage.BF16), run.Upload(norm), run.Upload(weight, Storage.BF16), KernelRun.NullPointer, run.Upload(cosSin),
                    run.Upload<int>(where), run.Upload<int>(slots), query, pages, others, In, Heads, KvHeads, Epsilon);
                return run.Read(query);
            });
        }
        float[] together = Launch(Rows, x, [0, 3, 1, 2]);
        Assert.Equal(together.AsSpan(Heads * HeadDim, Heads * HeadDim).ToArray(), Launch(1, x.AsSpan(In, In), [3]));
    }
}
