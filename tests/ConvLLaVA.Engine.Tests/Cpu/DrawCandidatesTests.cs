using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Kernels.Tests.Language;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Cpu;

/// <summary>Places in the order by weight, found without sorting all, against a sort of all.</summary>
public sealed class DrawCandidatesTests
{
    private const uint Most = 1u << 30;

    [Fact]
    public void Places_are_those_of_a_plain_sort()
    {
        // All magnitudes, few different ones, and neighbours that round to the same float.
        Gen<uint> any = Gen.Choose(0, 30).SelectMany(power => Gen.Choose(0, (1 << power) - 1).Select(low => Math.Min(Most, (1u << power) + (uint)low)));
        Gen<uint> tied = Gen.Elements(1u, 2u, 3u, 1u << 20, Most);
        Gen<uint> close = Gen.Choose(0, 40).Select(low => (1u << 29) - 20 + (uint)low);
        Gen<uint[]> weights = Gen.Choose(1, 300).SelectMany(count => Gen.OneOf(any.ArrayOf(count), tied.ArrayOf(count), close.ArrayOf(count)));
        var candidates = new DrawCandidates();
        Prop.ForAll(weights.ToArbitrary(), example =>
        {
            candidates.Clear(example.Length);
            for (int id = 0; id < example.Length; id++) candidates.Add(3 * id, example[id]);
            ulong all = 0;
            for (int id = 0; id < example.Length; all += example[id++])
            {
                Assert.Equal(3 * id, candidates.ById(all));
                Assert.Equal(3 * id, candidates.ById(all + example[id] - 1));
            }
            Assert.Equal(all, candidates.Sum);
            ulong ahead = 0;
            foreach (int id in Enumerable.Range(0, example.Length).OrderBy(id => example[id]).ThenByDescending(id => id))
            {
                Assert.Equal((3 * id, ahead), candidates.ByWeight(ahead));
                Assert.Equal((3 * id, ahead), candidates.ByWeight(ahead + example[id] - 1));
                Assert.Equal((ulong)example.Where(weight => weight < example[id]).Sum(weight => (long)weight), candidates.Below(example[id]));
                ahead += example[id];
            }
            Assert.Throws<InvalidOperationException>(() => candidates.ByWeight(all));
            Assert.Throws<InvalidOperationException>(() => candidates.ById(all));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(150));
    }

    [Theory]
    [InlineData(0)] // all equal
    [InlineData(8)] // thousands of each
    [InlineData(1e6f)]
    public void A_whole_vocabulary_is_drawn_from_as_defined(float steps)
    {
        var random = new Random(5);
        var sampler = new Sampler();
        var batch = new SamplingBatch();
        for (int round = 0; round < 24; round++)
        {
            float[] logits = new float[32000];
            for (int id = 0; id < logits.Length; id++) logits[id] = steps == 0 ? 0 : MathF.Round((random.NextSingle() + random.NextSingle() - 1) * steps) * (8 / steps);
            var rule = new SamplingRule(0.3f + (round % 5 * 0.4f), round % 3 == 1 ? 700 : 0, round % 4 == 3 ? 1 : 0.5f + (round % 4 * 0.16f), round % 5 == 2 ? 0.02f : 0, (ulong)random.NextInt64(), (ulong)round);
            batch.Reset(1, 0, -1);
            (batch.Temperatures[0], batch.TopK[0], batch.TopP[0], batch.MinP[0]) = (rule.Temperature, rule.TopK, rule.TopP, rule.MinP);
            (batch.Seeds[0], batch.Draws[0], batch.Counted[0], batch.Wanted[0]) = (rule.Seed, rule.Draws, 0, -1);
            sampler.Choose([.. logits], batch, 0);
            Assert.Equal(SamplingReference.Choose(logits, rule), batch.Tokens[0]);
        }
    }
}
