using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>Attention of many rows against double precision: every head width, grouped heads, ragged batches, page boundaries, chunks.</summary>
public sealed class AttentionPrefillTests
{
    // Whole prompts around a page's and a tile's end; one row; chunks at odd offsets beside rows that decode.
    private static readonly SequenceSpec[][] Batches =
    [
        [new(1, 1, 1), new(2, 15, 15), new(3, 16, 16), new(4, 17, 17)],
        [new(5, 70, 70), new(6, 1, 130), new(7, 33, 97)],
        [new(8, 64, 128), new(9, 5, 66), new(10, 1, 64), new(11, 1, 65)],
    ];

    [Theory]
    [InlineData(Storage.F16, 16, 2, 2, 0)]
    [InlineData(Storage.F16, 16, 8, 1, 1)]
    [InlineData(Storage.BF16, 32, 4, 2, 1)]
    [InlineData(Storage.BF16, 32, 2, 1, 2)]
    [InlineData(Storage.BF16, 48, 4, 4, 0)]
    [InlineData(Storage.BF16, 48, 4, 1, 2)]
    [InlineData(Storage.F16, 64, 2, 2, 1)]
    [InlineData(Storage.F16, 64, 4, 2, 0)]
    [InlineData(Storage.BF16, 96, 2, 1, 1)]
    [InlineData(Storage.F16, 128, 1, 1, 1)]
    [InlineData(Storage.F16, 128, 2, 1, 0)]
    [InlineData(Storage.F32, 8, 8, 1, 1)]
    [InlineData(Storage.F16, 8, 2, 2, 2)]
    [InlineData(Storage.BF16, 20, 4, 2, 0)]
    [InlineData(Storage.F32, 48, 4, 4, 0)]
    [InlineData(Storage.F32, 48, 2, 1, 2)]
    [InlineData(Storage.F32, 128, 1, 1, 0)]
    public void Equals_attention_in_double_precision(Storage storage, int headDim, int heads, int kvHeads, int batch)
    {
        var paged = new PagedCase(storage, headDim, heads, kvHeads, Batches[batch]);
        Check(paged, EmulatedDevice.InEveryOrder(run => new AttentionKernels(run, paged).Prefill()));
    }

    [Theory]
    [InlineData(Storage.F16, 64, 16, 64)]
    [InlineData(Storage.F16, 64, 128, 64)]
    [InlineData(Storage.F16, 64, 64, 32)]
    [InlineData(Storage.F32, 48, 8, 64)]
    [InlineData(Storage.F32, 48, 32, 64)]
    public void Tiles_of_other_sizes(Storage storage, int headDim, int queryTile, int keyTile)
    {
        var paged = new PagedCase(storage, headDim, 2, 1, new SequenceSpec(1, 40, 75), new SequenceSpec(2, 17, 17));
        Check(paged, EmulatedDevice.Run(run => new AttentionKernels(run, paged).Prefill(queryTile, keyTile)));
    }

    [Theory]
    [InlineData(Storage.F16, 64)]
    [InlineData(Storage.BF16, 48)]
    [InlineData(Storage.F32, 48)]
    public void A_rows_result_depends_on_neither_its_batch_nor_its_chunk(Storage storage, int headDim)
    {
        var whole = new PagedCase(storage, headDim, 2, 1, new SequenceSpec(7, 100, 100));
        float[] expected = EmulatedDevice.Run(run => new AttentionKernels(run, whole).Prefill());
        int done = 0;
        foreach (int context in (int[])[17, 18, 83, 100])
        {
            var chunk = new PagedCase(storage, headDim, 2, 1, new SequenceSpec(3, 21, 30), new SequenceSpec(7, context - done, context), new SequenceSpec(4, 1, 70));
            float[] result = EmulatedDevice.Run(run => new AttentionKernels(run, chunk).Prefill());
            for (int row = done; row < context; row++) Assert.Equal(whole.RowOf(expected, 0, row), chunk.RowOf(result, 1, row - done));
            done = context;
        }
    }

    [Fact]
    public void Any_batch()
    {
        EmulatedDevice.SkipWithout();
        Gen<SequenceSpec> sequence = from id in Gen.Choose(0, 1000)
                                     from before in Gen.Choose(0, 90)
                                     from queries in Gen.Choose(1, 70)
                                     select new SequenceSpec(id, queries, before + queries);
        var batches = from count in Gen.Choose(1, 3)
                      from sequences in sequence.ArrayOf(count)
                      from kvHeads in Gen.Choose(1, 2)
                      from storage in Gen.Elements(Storage.F32, Storage.BF16)
                      from order in Gen.Elements("forward", "reverse", "random:9")
                      select (sequences, kvHeads, storage, order);
        Prop.ForAll(batches.ToArbitrary(), batch =>
        {
            var paged = new PagedCase(batch.storage, 48, 2, batch.kvHeads, batch.sequences);
            Check(paged, EmulatedDevice.Run(run => new AttentionKernels(run, paged).Prefill(), batch.order));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(12));
    }

    private static void Check(PagedCase paged, float[] result)
    {
        bool rounded = AttentionKernels.TensorCores(paged.Storage, paged.HeadDim);
        for (int s = 0; s < paged.Sequences.Length; s++)
        {
            for (int row = 0; row < paged.Sequences[s].Queries; row++)
            {
                for (int head = 0; head < paged.Heads; head++) paged.Check(result, s, row, head, rounded);
            }
        }
    }
}
