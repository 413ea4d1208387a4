using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>Choosing tokens on the device: bit for bit against its definition, and against the CPU's sampler.</summary>
public sealed class SamplingTests
{
    [Theory]
    [InlineData(7, 32, 60, "forward")]       // every token has a thread
    [InlineData(300, 512, 60, "reverse")]
    [InlineData(300, 64, 60, "random:1")]    // short lists for top-k of 16 and below, halved intervals otherwise
    [InlineData(1000, 32, 60, "forward")]
    [InlineData(2100, 256, 60, "reverse")]
    [InlineData(32000, 512, 12, "forward")]
    public void Equals_its_definition(int vocabulary, int block, int rows, string order)
    {
        var random = new Random(vocabulary + block);
        List<float[]> logits = [];
        List<SamplingRule> rules = [];
        for (int row = 0; row < rows; row++)
        {
            float[] values = Numbers.Normal(vocabulary + row, vocabulary, scale: row % 3 == 0 ? 1 : 3);
            if (row % 5 == 0) values = Array.ConvertAll(values, MathF.Round); // many equals
            if (row % 7 == 0) for (int i = 0; i < vocabulary; i += 3) values[i] = float.NegativeInfinity;
            if (row % 11 == 0) Array.Fill(values, -2.5f);
            logits.Add(values);
            int[] topK = [0, 1, 5, 12, 50, vocabulary, 200];
            rules.Add(new SamplingRule(row % 6 == 0 ? 0 : 0.3f + 0.2f * (row % 8), topK[random.Next(7)], row % 2 == 1 ? 1 : 0.3f + 0.1f * (row % 7),
                row % 4 == 1 ? 0.05f * (row % 9) : 0, (ulong)random.NextInt64(), (ulong)(row % 4)));
        }
        int[] tokens = Run(logits, rules, block, order);
        var cpu = new Sampler();
        for (int row = 0; row < rules.Count; row++)
        {
            int expected = SamplingReference.Choose(logits[row], rules[row]);
            Assert.Equal(expected, OnCpu(cpu, logits[row], rules[row]));
            Assert.True(expected == tokens[row], $"Row {row}, {rules[row]}: {tokens[row]}, but {expected} is expected.");
        }
    }

    [Fact]
    public void Greedy_takes_the_lowest_of_equals_and_refuses_what_is_no_number()
    {
        List<float[]> rows = [.. Enumerable.Range(0, 8).Select(seed => Numbers.Normal(seed, 500))];
        (rows[0][33], rows[0][450], rows[0][499]) = (9, 9, 9);
        (rows[1][499], rows[1][0]) = (9, -9);
        rows[2] = new float[500];
        (rows[2][0], rows[2][1]) = (-0f, 0f);
        rows[3][77] = float.NaN;
        rows[4][77] = float.PositiveInfinity;
        Array.Fill(rows[5], float.NegativeInfinity);
        rows[6] = [.. rows[6].Select((_, i) => i == 312 ? -1e30f : float.NegativeInfinity)];
        rows[7][499] = -float.NaN;
        foreach (float temperature in (float[])[0, 1])
        {
            int[] tokens = Run(rows, [.. rows.Select(_ => new SamplingRule(temperature, TopK: 1))], 64);
            int[] expected = [33, 499, 0, -1, -1, -1, 312, -1];
            if (temperature > 0) (tokens[0], tokens[2]) = (33, 0); // equals stay in play
            Assert.Equal(expected, tokens);
        }
    }

    /// <summary>1 - top_p rounds to 1 for the first three of these; the engine lets a caller ask for any but 0.</summary>
    [Theory]
    [InlineData(50, 0)]   // every token has a thread
    [InlineData(500, 10)] // a short list
    [InlineData(500, 0)]  // halved intervals
    public void The_likeliest_stays_however_small_top_p_is(int vocabulary, int topK)
    {
        float[] topP = [0, 1e-30f, 1e-9f, 5.9e-8f, 1.2e-7f];
        List<float[]> logits = [.. topP.Select((_, row) => Numbers.Normal(row, vocabulary))];
        logits[1][49] = logits[1][20] = 9; // the lower of equals is the likeliest
        List<SamplingRule> rules = [.. topP.Select((p, row) => new SamplingRule(1, topK, p, Seed: (ulong)row))];
        int[] likeliest = [.. logits.Select(row => Array.IndexOf(row, row.Max()))];
        Assert.Equal(likeliest, Run(logits, rules, 64));
        Assert.Equal(likeliest, logits.Zip(rules, (row, rule) => OnCpu(new Sampler(), row, rule)));
        Assert.Equal(likeliest, logits.Zip(rules, (row, rule) => SamplingReference.Choose(row, rule)));
    }

    [Fact]
    public void Chooses_what_the_cpu_sampler_chooses()
    {
        List<float[]> logits = [];
        List<SamplingRule> rules = [];
        List<int> expected = [];
        var sampler = new Sampler();
        for (int row = 0; row < 240; row++)
        {
            logits.Add(Numbers.Normal(row, 400, scale: 2));
            rules.Add(new SamplingRule(row % 5 == 0 ? 0 : 0.5f + row % 3 * 0.4f, row % 4 == 0 ? 0 : 40, row % 3 == 0 ? 0.9f : 1, row % 7 == 0 ? 0.05f : 0, (ulong)row * 7919, (ulong)(row % 3)));
            expected.Add(OnCpu(sampler, logits[row], rules[row]));
        }
        int[] tokens = Run(logits, rules, 256);
        Assert.Equal(expected, tokens);
    }

    [Theory]
    [InlineData(0, 1f, 0f)]
    [InlineData(6, 1f, 0f)]
    [InlineData(0, 0.8f, 0f)]
    [InlineData(0, 1f, 0.1f)]
    public void Frequencies_follow_the_probabilities(int topK, float topP, float minP)
    {
        const int Draws = 3000, Vocabulary = 12;
        float[] logits = Numbers.Normal(5, Vocabulary, scale: 1.2);
        int[] tokens = Run([.. Enumerable.Repeat(logits, Draws)],
            [.. Enumerable.Range(0, Draws).Select(draw => new SamplingRule(1.1f, topK, topP, minP, 42, (ulong)draw))], 32);

        double[] weights = Array.ConvertAll(logits, logit => Math.Exp((logit - logits.Max()) / 1.1));
        if (topK > 0) weights = [.. weights.Select(weight => weights.Count(other => other > weight) < topK ? weight : 0)];
        double all = weights.Sum();
        // Hugging Face's top-p: what is left above it, counted from the likeliest, goes.
        weights = [.. weights.Select(weight => weights.Where(other => other > weight).Sum() < topP * all && weight >= minP ? weight : 0)];
        double kept = weights.Sum(), chiSquare = 0;
        int kinds = weights.Count(weight => weight > 0);
        for (int id = 0; id < Vocabulary; id++)
        {
            double expected = Draws * weights[id] / kept, seen = tokens.Count(token => token == id);
            if (weights[id] == 0) Assert.Equal(0, seen);
            else chiSquare += (seen - expected) * (seen - expected) / expected;
        }
        // Wilson and Hilferty's approximation of the 99.9 % quantile.
        double freedom = kinds - 1, limit = freedom * Math.Pow(1 - 2 / (9 * freedom) + 3.09 * Math.Sqrt(2 / (9 * freedom)), 3);
        Assert.True(kinds > 1 && chiSquare < limit, $"chi-square {chiSquare} with {freedom} degrees of freedom, limit {limit}");
    }

    [Fact]
    public void Weights_are_exponentials()
    {
        for (float x = 0; x > -14; x -= 0.00137f)
        {
            double exact = Math.Exp(x), weight = SamplingReference.Weight(x, 0, 1) / (double)(1 << 30);
            Assert.InRange(weight, exact * (1 - 2e-7) - Math.ScaleB(1, -30), exact * (1 + 2e-7));
        }
    }

    private static int OnCpu(Sampler sampler, float[] logits, SamplingRule rule)
    {
        var batch = new SamplingBatch();
        batch.Reset(1, 0, -1);
        (batch.Temperatures[0], batch.TopK[0], batch.TopP[0], batch.MinP[0]) = (rule.Temperature, rule.TopK, rule.TopP, rule.MinP);
        (batch.Seeds[0], batch.Draws[0], batch.Counted[0], batch.Wanted[0]) = (rule.Seed, rule.Draws, 0, -1);
        sampler.Choose([.. logits], batch, 0);
        return batch.Tokens[0];
    }

    private static int[] Run(List<float[]> logits, List<SamplingRule> rules, int block, string order = "reverse") => EmulatedDevice.Run(run =>
    {
        int rows = rules.Count, vocabulary = logits[0].Length;
        DeviceArray tokens = run.Allocate(rows, Storage.F32);
        float[] settings = [.. rules.Select(rule => rule.Temperature), .. rules.Select(rule => rule.TopP), .. rules.Select(rule => rule.MinP)];
        ulong[] randomness = [.. rules.Select(rule => rule.Seed), .. rules.Select(rule => rule.Draws)];
        int[] topK = [.. rules.Select(rule => rule.TopK)];
        run.Launch(Kernel.Compile("sample.cu", Storage.F32), "sample", new Dim3(rows), block, 0, run.Upload(logits.SelectMany(row => row).ToArray()), run.Upload(settings),
            run.Upload<int>(topK), run.Upload<ulong>(randomness), run.Allocate(rows * vocabulary, Storage.F32), tokens, rows, vocabulary);
        return run.Read<int>(tokens);
    }, order);
}
