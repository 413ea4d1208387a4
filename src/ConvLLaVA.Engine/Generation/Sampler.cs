using System.Numerics;
using System.Runtime.InteropServices;

namespace ConvLLaVA.Engine.Generation;

/// <summary>Chooses tokens, in Hugging Face's order: penalties, temperature, top-k, top-p, min-p, softmax, one draw, all in fp32.
/// One instance serves one engine thread and reuses its scratch memory; what differs between requests is in
/// <see cref="SamplerState"/>.</summary>
internal sealed class Sampler
{
    private readonly List<Candidate> _candidates = [];
    private readonly PriorityQueue<int, float> _best = new();

    /// <summary>Chooses the next token and books it in <paramref name="state"/>.</summary>
    /// <param name="logits">The model's logits; changed in place. [vocab]</param>
    /// <param name="options">How to choose.</param>
    /// <param name="state">What the request generated so far.</param>
    /// <param name="entry">The token's probability under the unchanged logits, when asked for.</param>
    /// <exception cref="ConvLlavaException">A logit is not a number.</exception>
    public int Choose(Span<float> logits, GenerationOptions options, SamplerState state, out LogProbEntry? entry)
    {
        int best = ArgMax(logits);
        float[]? original = options.LogProbs ? logits.ToArray() : null;
        int chosen = Choose(logits, best, options, state);
        entry = original is null ? null : Describe(original, chosen, options.TopLogProbs);
        state.Book(chosen);
        return chosen;
    }

    private int Choose(Span<float> logits, int best, GenerationOptions options, SamplerState state)
    {
        if (options.RepetitionPenalty != 1 || options.PresencePenalty != 0 || options.FrequencyPenalty != 0)
        {
            Penalise(logits, options, state);
            best = ArgMax(logits);
        }
        if (!options.Samples) return best;

        float highest = logits[best];
        float threshold = options.TopK > 0 && options.TopK < logits.Length ? KthLargest(logits, options.TopK) : float.NegativeInfinity;
        _candidates.Clear();
        for (int id = 0; id < logits.Length; id++)
        {
            // Shifting by the highest logit first keeps a tiny temperature from overflowing: 0 / t is 0, and -x / t at worst -infinity.
            if (logits[id] >= threshold) _candidates.Add(new Candidate(id, MathF.Exp((logits[id] - highest) / options.Temperature)));
        }
        if (options.TopP < 1 || options.MinP > 0) Narrow(options.TopP, options.MinP);
        return Draw(state);
    }

    /// <summary>The position of the largest value, the lowest one among equals.</summary>
    private static int ArgMax(ReadOnlySpan<float> logits)
    {
        var highest = new Vector<float>(float.NegativeInfinity);
        ReadOnlySpan<Vector<float>> vectors = MemoryMarshal.Cast<float, Vector<float>>(logits);
        bool ordered = true;
        foreach (Vector<float> vector in vectors)
        {
            ordered &= Vector.EqualsAll(vector, vector); // NaN is the one value unequal to itself
            highest = Vector.Max(highest, vector);
        }
        float maximum = float.NegativeInfinity;
        for (int i = 0; i < Vector<float>.Count; i++) maximum = MathF.Max(maximum, highest[i]);
        foreach (float value in logits[(vectors.Length * Vector<float>.Count)..])
        {
            ordered &= !float.IsNaN(value);
            maximum = MathF.Max(maximum, value);
        }
        if (!ordered || !float.IsFinite(maximum)) throw new ConvLlavaException("The model produced logits that are not numbers; its weights or the picture's features are broken.");
        return logits.IndexOf(maximum);
    }

    private static void Penalise(Span<float> logits, GenerationOptions options, SamplerState state)
    {
        foreach ((int id, int count) in state.Counts)
        {
            float value = logits[id];
            value = value > 0 ? value / options.RepetitionPenalty : value * options.RepetitionPenalty;
            logits[id] = value - options.PresencePenalty - (options.FrequencyPenalty * count);
        }
    }

    private float KthLargest(ReadOnlySpan<float> logits, int k)
    {
        _best.Clear();
        for (int id = 0; id < logits.Length; id++)
        {
            if (_best.Count < k) _best.Enqueue(id, logits[id]);
            else if (_best.TryPeek(out _, out float least) && logits[id] > least) _best.EnqueueDequeue(id, logits[id]);
        }
        _best.TryPeek(out _, out float threshold);
        return threshold;
    }

    /// <summary>top-p as Hugging Face does it: ascending, cumulative probabilities up to 1 - top_p go, the likeliest always stays. Then
    /// min-p relative to the likeliest.</summary>
    private void Narrow(float topP, float minP)
    {
        _candidates.Sort(static (a, b) => a.Weight != b.Weight ? a.Weight.CompareTo(b.Weight) : b.Id.CompareTo(a.Id));
        float total = 0;
        foreach (Candidate candidate in _candidates) total += candidate.Weight;
        int dropped = 0;
        if (topP < 1)
        {
            float cumulative = 0;
            while (dropped < _candidates.Count - 1 && (cumulative += _candidates[dropped].Weight / total) <= 1 - topP) dropped++;
        }
        float least = minP * _candidates[^1].Weight;
        while (dropped < _candidates.Count - 1 && _candidates[dropped].Weight < least) dropped++;
        _candidates.RemoveRange(0, dropped);
    }

    private int Draw(SamplerState state)
    {
        double total = 0;
        foreach (Candidate candidate in _candidates) total += candidate.Weight;
        double target = state.NextUniform() * total;
        foreach (Candidate candidate in _candidates)
        {
            target -= candidate.Weight;
            if (target < 0) return candidate.Id;
        }
        return _candidates[^1].Id; // rounding can leave a sliver behind the last candidate
    }

    private static LogProbEntry Describe(float[] logits, int chosen, int top)
    {
        float highest = logits.Max();
        double sum = 0;
        foreach (float value in logits) sum += Math.Exp(value - highest);
        double normaliser = highest + Math.Log(sum);
        TokenLogProb Of(int id) => new(id, (float)(logits[id] - normaliser));
        IReadOnlyList<TokenLogProb> best = top == 0
            ? []
            : [.. Enumerable.Range(0, logits.Length).OrderByDescending(id => logits[id]).ThenBy(id => id).Take(top).Select(Of)];
        return new LogProbEntry(Of(chosen), best);
    }

    private readonly record struct Candidate(int Id, float Weight);
}
