namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>How one row is sampled.</summary>
internal sealed record SamplingRule(float Temperature, int TopK = 0, float TopP = 1, float MinP = 0, ulong Seed = 1, ulong Draws = 0);

/// <summary>The definition of the sampling kernel's result (the head of <c>sample.cu</c>), without its short cuts.</summary>
internal static class SamplingReference
{
    private const uint One = 1u << 30;

    /// <summary>The token that is chosen, or -1 where the logits are no numbers.</summary>
    public static int Choose(ReadOnlySpan<float> logits, SamplingRule rule)
    {
        int best = 0;
        for (int i = 0; i < logits.Length; i++)
        {
            if (float.IsNaN(logits[i])) return -1;
            if (logits[i] > logits[best]) best = i;
        }
        if (!float.IsFinite(logits[best])) return -1;
        if (rule.Temperature == 0) return best;

        float threshold = rule.TopK > 0 && rule.TopK < logits.Length ? logits.ToArray().OrderDescending().ElementAt(rule.TopK - 1) : float.NegativeInfinity;
        float inverse = 1 / rule.Temperature;
        List<(uint Weight, int Id)> tokens = [];
        for (int i = 0; i < logits.Length; i++) tokens.Add((logits[i] >= threshold ? Weight(logits[i], logits[best], inverse) : 0, i));
        ulong all = tokens.Aggregate(0UL, (sum, token) => sum + token.Weight), dropped = 0, passed = 0;
        if (rule.TopP < 1 || rule.MinP > 0)
        {
            tokens = [.. tokens.OrderBy(token => token.Weight).ThenByDescending(token => token.Id)];
            ulong limit = (ulong)((double)(1 - Math.Max(rule.TopP, 1.2e-7f)) * all);
            uint least = (uint)(rule.MinP * One);
            foreach ((uint weight, _) in tokens)
            {
                passed += weight;
                if (passed <= limit || weight < least) dropped = passed;
            }
        }
        ulong target = dropped + Math.Min((ulong)(Uniform(rule.Seed, rule.Draws) * (all - dropped)), all - dropped - 1);
        passed = 0;
        return tokens.First(token => (passed += token.Weight) > target).Id;
    }

    /// <summary>e^((logit - highest) * inverse) in units of 2^-30.</summary>
    public static uint Weight(float logit, float highest, float inverse)
    {
        if (logit >= highest) return One;
        float x = (logit - highest) * inverse, whole = MathF.Floor(x * 1.44269502f);
        if (!(whole >= -31)) return 0;
        float f = MathF.FusedMultiplyAdd(x, 1.92596303e-8f, MathF.FusedMultiplyAdd(x, 1.44269502f, -whole)), power = 2.16129381e-4f;
        foreach (float coefficient in (ReadOnlySpan<float>)[1.24678388e-3f, 9.67545249e-3f, 5.54852784e-2f, 2.40229309e-1f, 6.93147063e-1f, 1])
            power = MathF.FusedMultiplyAdd(power, f, coefficient);
        return (uint)(power * One) >> -(int)whole;
    }

    private static double Uniform(ulong seed, ulong draws) => (Mix(Mix(seed) + (draws + 1) * 0x9E3779B97F4A7C15) >> 11) * (1.0 / (1UL << 53));

    private static ulong Mix(ulong x)
    {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
        return x ^ (x >> 31);
    }
}
