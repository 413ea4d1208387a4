using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>Attention of one row a sequence in splits, and their joining, against double precision.</summary>
public sealed class AttentionDecodeTests
{
    private static readonly SequenceSpec[] Contexts =
    [
        new(1, 1, 1), new(2, 1, 15), new(3, 1, 16), new(4, 1, 17), new(5, 1, 127), new(6, 1, 128), new(7, 1, 129), new(8, 1, 300), new(9, 20, 40),
    ];

    [Theory]
    [InlineData(Storage.F16, 8, 2, 2, 1)]
    [InlineData(Storage.BF16, 16, 4, 2, 2)]
    [InlineData(Storage.F16, 32, 4, 1, 4)]
    [InlineData(Storage.F16, 20, 2, 1, 1)]
    [InlineData(Storage.F32, 48, 4, 4, 1)]
    [InlineData(Storage.F32, 48, 8, 1, 4)]
    [InlineData(Storage.BF16, 48, 4, 2, 1)]
    [InlineData(Storage.BF16, 64, 2, 2, 1)]
    [InlineData(Storage.F16, 96, 4, 1, 4)]
    [InlineData(Storage.F16, 128, 1, 1, 1)]
    [InlineData(Storage.BF16, 128, 8, 1, 4)]
    [InlineData(Storage.F32, 128, 1, 1, 1)]
    public void Equals_attention_in_double_precision(Storage storage, int headDim, int heads, int kvHeads, int group)
    {
        var paged = new PagedCase(storage, headDim, heads, kvHeads, Contexts);
        Check(paged, EmulatedDevice.InEveryOrder(run => new AttentionKernels(run, paged).Decode(All(paged), group)));
    }

    [Theory]
    [InlineData(Storage.BF16, 48, 1)]
    [InlineData(Storage.F32, 48, 1)]
    [InlineData(Storage.F16, 32, 4)]
    public void A_rows_result_depends_on_its_own_context_alone(Storage storage, int headDim, int group)
    {
        var paged = new PagedCase(storage, headDim, 4, 1, new SequenceSpec(1, 1, 5), new SequenceSpec(8, 1, 300), new SequenceSpec(3, 1, 129));
        float[] expected = EmulatedDevice.Run(run => new AttentionKernels(run, paged).Decode([0, 1, 2], group));
        foreach ((int room, int blocks) in ((int, int)[])[(0, 1), (0, 2), (5, 0), (2, 9)])
            Assert.Equal(expected, EmulatedDevice.Run(run => new AttentionKernels(run, paged).Decode([0, 1, 2], group, room, blocks)));

        var alone = new PagedCase(storage, headDim, 4, 1, new SequenceSpec(8, 1, 300));
        Assert.Equal(paged.RowOf(expected, 1, 0), EmulatedDevice.Run(run => new AttentionKernels(run, alone).Decode([0], group)));
    }

    [Fact]
    public void Rows_of_a_graph_that_are_not_in_use_are_left_alone()
    {
        var paged = new PagedCase(Storage.BF16, 48, 4, 2, new SequenceSpec(1, 1, 40), new SequenceSpec(2, 1, 140), new SequenceSpec(3, 1, 9));
        float[] all = EmulatedDevice.Run(run => new AttentionKernels(run, paged).Decode([0, 1, 2]));
        float[] some = EmulatedDevice.Run(run => new AttentionKernels(run, paged).Decode([1, -1, -1, 0]));
        Assert.Equal(paged.RowOf(all, 0, 0), paged.RowOf(some, 0, 0));
        Assert.Equal(paged.RowOf(all, 1, 0), paged.RowOf(some, 1, 0));
        Assert.All(paged.RowOf(some, 2, 0), value => Assert.True(float.IsNaN(value)));
    }

    [Fact]
    public void Any_contexts()
    {
        EmulatedDevice.SkipWithout();
        var batches = from count in Gen.Choose(1, 5)
                      from contexts in Gen.Choose(1, 290).ArrayOf(count)
                      from storage in Gen.Elements(Storage.F32, Storage.BF16)
                      from order in Gen.Elements("forward", "reverse", "random:9")
                      select (contexts, storage, order);
        Prop.ForAll(batches.ToArbitrary(), batch =>
        {
            var paged = new PagedCase(batch.storage, 48, 4, 2, [.. batch.contexts.Select((context, i) => new SequenceSpec(i + context, 1, context))]);
            Check(paged, EmulatedDevice.Run(run => new AttentionKernels(run, paged).Decode(All(paged)), batch.order));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(12));
    }

    private static int[] All(PagedCase paged) => [.. Enumerable.Range(0, paged.Sequences.Length)];

    private static void Check(PagedCase paged, float[] result)
    {
        for (int s = 0; s < paged.Sequences.Length; s++)
        {
            for (int head = 0; head < paged.Heads; head++) paged.Check(result, s, paged.Sequences[s].Queries - 1, head, roundedWeights: false);
        }
    }
}
