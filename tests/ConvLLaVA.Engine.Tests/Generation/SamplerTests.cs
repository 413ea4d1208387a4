using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Tensors;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Generation;

/// <summary>Choosing tokens: greedy, the filters in Hugging Face's order, penalties, seeds and probabilities.</summary>
public sealed class SamplerTests
{
    private static readonly GenerationOptions Greedy = new();
    private static readonly GenerationOptions Sampling = new() { Temperature = 1, TopK = 0 };

    [Fact]
    public void Greedy_takes_the_likeliest_and_the_lowest_id_of_equals()
    {
        Assert.Equal(3, Choose([1, 2, 0, 7, 7, 5, 7, 1, 1, 1, 7], Greedy));
        Assert.Equal(0, Choose([-1, -1, -1], Greedy));
        Assert.Equal(18, Choose([.. Enumerable.Range(0, 19).Select(i => (float)i)], Greedy));
    }

    [Fact]
    public void Sampling_is_off_without_temperature()
    {
        Assert.Equal(1, Choose([0, 1, 0.9f], Greedy with { TopK = 3, TopP = 0.1f, Seed = 4 }));
        Assert.Equal(1, Choose([0, 1, 0.9f], Sampling with { TopK = 1 }));
        Assert.Equal(1, Choose([0, 1, 0.9f], Sampling with { MinP = 1 }));
    }

    [Theory]
    [InlineData(1e-3f)]
    [InlineData(1e-30f)]
    [InlineData(1e-45f)] // 1 / temperature is infinite
    public void A_tiny_temperature_is_greedy(float temperature)
    {
        for (ulong seed = 0; seed < 20; seed++) Assert.Equal(2, Choose([1, 30, 31, -5], Sampling with { Temperature = temperature }, seed));
    }

    [Fact]
    public void Fifty_tokens_are_drawn_from_unless_said_otherwise()
    {
        Assert.Equal(50, new GenerationOptions().TopK);
        float[] logits = [.. Enumerable.Range(0, 200).Select(i => i * -0.001f)];
        int[] drawn = Draw(logits, new GenerationOptions { Temperature = 1 }, 3000);
        Assert.Equal(Enumerable.Range(0, 50), drawn.Distinct().Order());
        Assert.Contains(Draw(logits, Sampling, 300), id => id >= 50);
    }

    [Fact]
    public void Ties_with_the_last_of_top_k_are_kept() => Assert.Equal([0, 1, 2], Draw([5, 4, 4, 3], Sampling with { TopK = 2 }, 300).Distinct().Order());

    [Fact]
    public void The_filters_keep_what_Hugging_Face_keeps()
    {
        Gen<(int[] Logits, int TopK, int TopP, int MinP, int Temperature)> example =
            from logits in Gen.Choose(-6, 6).ArrayOf(9)
            from topK in Gen.Choose(0, 10)
            from topP in Gen.Choose(1, 10)
            from minP in Gen.Choose(0, 3)
            from temperature in Gen.Choose(1, 8)
            select (logits, topK, topP, minP, temperature);
        Prop.ForAll(example.ToArbitrary(), e =>
        {
            // Quarters apart and a little unequal: sums that decide a cut at top_p never come close to it by rounding alone.
            float[] logits = [.. e.Logits.Select((value, id) => (value * 0.25f) + (id * 0.013f))];
            var options = Sampling with { TopK = e.TopK, TopP = e.TopP / 10f, MinP = e.MinP * 0.1f, Temperature = e.Temperature * 0.25f };
            double[] expected = Filtered(logits, options);
            int[] drawn = Draw(logits, options, 200);
            Assert.All(drawn, id => Assert.True(expected[id] > 0, $"{id} was drawn but is filtered out"));
            for (int id = 0; id < logits.Length; id++)
            {
                // 200 draws miss a token of probability 0.1 once in a billion.
                if (expected[id] > 0.1) Assert.Contains(id, drawn);
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(200));
    }

    [Fact]
    public void Draws_follow_the_probabilities()
    {
        float[] logits = [0, 1, 2, -1, 0.5f];
        double[] expected = Filtered(logits, Sampling);
        const int Count = 40_000;
        int[] drawn = Draw(logits, Sampling, Count);
        double chiSquare = Enumerable.Range(0, 5).Sum(id => Math.Pow(drawn.Count(d => d == id) - (Count * expected[id]), 2) / (Count * expected[id]));
        Assert.InRange(chiSquare, 0, 25); // 4 degrees of freedom: 25 is one in twenty thousand, and the seed is fixed
    }

    [Fact]
    public void A_seed_repeats_and_another_differs()
    {
        float[] flat = new float[1000];
        int[] Sequence(ulong seed)
        {
            var state = new SamplerState(seed);
            return [.. Enumerable.Range(0, 30).Select(draw => Choose([.. flat], Sampling, state, out _))];
        }
        Assert.Equal(Sequence(1), Sequence(1));
        Assert.NotEqual(Sequence(1), Sequence(2));
        Assert.True(Sequence(3).Distinct().Count() > 20);
    }

    [Fact]
    public void Penalties_act_on_generated_tokens_only()
    {
        var state = new SamplerState(0);
        var options = Greedy with { RepetitionPenalty = 2 };
        Assert.Equal(0, Choose([4, 3, -1], options, state, out _));
        Assert.Equal(1, Choose([4, 3, -1], options, state, out _)); // 4 / 2
        Assert.Equal(0, Choose([4, 3, -1], options, state, out _)); // 2 against 1.5
        float[] logits = [-1, -3, -3.5f];
        Choose(logits, options, state, out _);
        Assert.Equal([-2, -6, -3.5f], logits); // negative logits are multiplied

        state = new SamplerState(0);
        state.Book(2, drawn: false);
        state.Book(2, drawn: false);
        state.Book(1, drawn: false);
        logits = [1, 1, 1];
        Choose(logits, Greedy with { PresencePenalty = 0.5f, FrequencyPenalty = 0.25f }, state, out _);
        Assert.Equal([1, 0.25f, 0], logits);
    }

    [Fact]
    public void Probabilities_are_those_before_penalties_and_filters()
    {
        float[] logits = [1, 3, 2, 0];
        double sum = logits.Sum(value => Math.Exp(value));
        var state = new SamplerState(9);
        state.Book(1, drawn: false);
        int chosen = Choose([.. logits], Sampling with { TopK = 1, RepetitionPenalty = 100, LogProbs = true, TopLogProbs = 3 }, state, out LogProbEntry? entry);
        Assert.Equal(2, chosen);
        Assert.Equal(2, entry!.Chosen.Id);
        Assert.Equal([1, 2, 0], entry.Top.Select(top => top.Id));
        foreach (TokenLogProb top in entry.Top) Assert.Equal(Math.Log(Math.Exp(logits[top.Id]) / sum), top.LogProb, 5);
        Assert.Equal(entry.Top[1], entry.Chosen);
        Choose([.. logits], Greedy, new SamplerState(0), out entry);
        Assert.Null(entry);
    }

    [Theory]
    [InlineData(float.NaN)]
    [InlineData(float.PositiveInfinity)]
    public void Logits_that_are_no_numbers_are_an_error(float broken)
    {
        foreach (int at in (int[])[0, 5, 36])
        {
            float[] logits = new float[37];
            logits[at] = broken;
            Assert.Contains("not numbers", Assert.Throws<ConvLlavaException>(() => Choose(logits, Greedy)).Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(1e-9f)] // 1 - top_p is 1
    [InlineData(1e-7f)]
    public void The_likeliest_stays_however_small_top_p_is(float topP)
        => Assert.Equal([1], Draw([0, 1, 0.99f, 0.5f], Sampling with { TopP = topP }, 100).Distinct());

    [Fact]
    public void Rows_of_a_step_are_chosen_as_each_would_be_alone()
    {
        float[][] logits = [.. Enumerable.Range(0, 5).Select(row => Array.ConvertAll(new float[300], _ => 0f).Select((_, i) => MathF.Sin((i * (row + 3.7f)) + row)).ToArray())];
        SamplingRow[] rows =
        [
            new(Greedy, State(1)), new(Sampling with { TopK = 40, TopP = 0.9f }, State(2)), new(Greedy with { RepetitionPenalty = 1.3f, LogProbs = true, TopLogProbs = 4 }, State(3)),
            new(Sampling with { MinP = 0.1f, FrequencyPenalty = 0.2f }, State(4)), new(Greedy with { LogProbs = true }, State(5)),
        ];
        var sampler = new Sampler();
        var batch = new SamplingBatch();
        SamplingRows.Fill(batch, rows, 300);
        for (int row = 0; row < rows.Length; row++) sampler.Choose([.. logits[row]], batch, row);
        for (int row = 0; row < rows.Length; row++)
        {
            int expected = Choose([.. logits[row]], rows[row].Options, State((ulong)row + 1), out LogProbEntry? expectedEntry);
            Assert.Equal(expected, SamplingRows.Take(batch, row, rows[row], out LogProbEntry? entry));
            Assert.Equal(expectedEntry?.Chosen, entry?.Chosen);
            Assert.Equal(expectedEntry?.Top, entry?.Top);
        }

        static SamplerState State(ulong seed)
        {
            var state = new SamplerState(seed);
            for (int i = 0; i < 20; i++) state.Book((int)seed * i, drawn: i % 2 == 0);
            return state;
        }
    }

    private static int Choose(float[] logits, GenerationOptions options, ulong seed = 0) => Choose([.. logits], options, new SamplerState(seed), out _);

    private static int Choose(float[] logits, GenerationOptions options, SamplerState state, out LogProbEntry? entry)
    {
        var batch = new SamplingBatch();
        var row = new SamplingRow(options, state);
        SamplingRows.Fill(batch, [row], logits.Length);
        new Sampler().Choose(logits, batch, 0);
        return SamplingRows.Take(batch, 0, row, out entry);
    }

    private static int[] Draw(float[] logits, GenerationOptions options, int count)
    {
        options.Validate();
        var state = new SamplerState(17);
        return [.. Enumerable.Range(0, count).Select(draw => Choose([.. logits], options, state, out _))];
    }

    /// <summary>Hugging Face's warpers one after the other, in double precision: temperature, top-k, top-p, min-p, softmax.</summary>
    private static double[] Filtered(float[] logits, GenerationOptions options)
    {
        double[] scores = [.. logits.Select(value => value / (double)options.Temperature)];
        if (options.TopK > 0 && options.TopK < scores.Length)
        {
            double least = scores.OrderDescending().ElementAt(options.TopK - 1);
            scores = [.. scores.Select(score => score < least ? double.NegativeInfinity : score)];
        }
        double[] p = Softmax(scores);
        int best = Array.IndexOf(p, p.Max());
        if (options.TopP < 1)
        {
            double cumulative = 0;
            foreach (int id in Enumerable.Range(0, p.Length).OrderBy(id => p[id]))
            {
                cumulative += p[id];
                if (cumulative <= 1 - options.TopP && id != best) scores[id] = double.NegativeInfinity;
            }
            p = Softmax(scores);
        }
        return Softmax([.. scores.Select((score, id) => p[id] < options.MinP * p[best] ? double.NegativeInfinity : score)]);
    }

    private static double[] Softmax(double[] scores)
    {
        double highest = scores.Max(), sum = scores.Sum(score => Math.Exp(score - highest));
        return [.. scores.Select(score => Math.Exp(score - highest) / sum)];
    }
}
