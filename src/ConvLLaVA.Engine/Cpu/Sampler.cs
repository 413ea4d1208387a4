using System.Numerics;
using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Chooses tokens, in Hugging Face's order: penalties, temperature, top-k, top-p, min-p, softmax, one draw. What is drawn is
/// defined in integers, so that it does not depend on the order of any sum: the definition stands in <c>kernels/sample.cu</c>. Scratch
/// memory is reused, so one instance serves one thread.</summary>
internal sealed class Sampler
{
    private const uint One = 1u << 30; // the weight of the likeliest token
    private const float LeastTopP = 1.2e-7f; // keeps 1 - top_p below 1, which would drop everything
    private readonly DrawCandidates _candidates = new();
    private readonly PriorityQueue<int, float> _best = new();
    private float[] _unchanged = []; // [vocab]

    /// <summary>Chooses the token of one row and writes it, and what else the row wants, into <paramref name="sampling"/>.</summary>
    /// <param name="logits">The row's logits; penalties change them in place. [vocab]</param>
    /// <param name="sampling">The step.</param>
    /// <param name="row">Which row of it.</param>
    public void Choose(Span<float> logits, SamplingBatch sampling, int row)
    {
        bool describes = sampling.Wanted[row] >= 0;
        ReadOnlySpan<float> unchanged = logits;
        if (sampling.Counted[row] > 0)
        {
            if (describes)
            {
                if (_unchanged.Length < logits.Length) _unchanged = new float[logits.Length];
                logits.CopyTo(_unchanged);
                unchanged = _unchanged.AsSpan(0, logits.Length);
            }
            Penalise(logits, sampling, row);
        }
        int chosen = ArgMax(logits);
        if (chosen >= 0 && sampling.Temperatures[row] > 0) chosen = Draw(logits, chosen, sampling, row);
        sampling.Tokens[row] = chosen;
        if (describes && chosen >= 0) Describe(unchanged, sampling, row);
    }

    /// <summary>Number <paramref name="draws"/> (from 0) of a seed's: SplitMix64 over a counter, uniform in [0, 1).</summary>
    public static double Uniform(ulong seed, ulong draws) => (Mix(Mix(seed) + ((draws + 1) * 0x9E3779B97F4A7C15)) >> 11) * (1.0 / (1UL << 53));

    private static ulong Mix(ulong x)
    {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
        return x ^ (x >> 31);
    }

    /// <summary>The position of the largest value, the lowest one among equals; -1 when a value is no number or the largest is infinite.</summary>
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
        return ordered && float.IsFinite(maximum) ? logits.IndexOf(maximum) : -1;
    }

    private static void Penalise(Span<float> logits, SamplingBatch sampling, int row)
    {
        float repetition = sampling.RepetitionPenalties[row], presence = sampling.PresencePenalties[row], frequency = sampling.FrequencyPenalties[row];
        for (int i = row * sampling.MaxCounted, end = i + sampling.Counted[row]; i < end; i++)
        {
            int id = sampling.CountedIds[i];
            float value = logits[id];
            value = value > 0 ? value / repetition : value * repetition;
            logits[id] = value - presence - (frequency * sampling.Counts[i]);
        }
    }

    private int Draw(ReadOnlySpan<float> logits, int best, SamplingBatch sampling, int row)
    {
        int topK = sampling.TopK[row];
        float highest = logits[best], inverse = 1 / sampling.Temperatures[row], topP = sampling.TopP[row], minP = sampling.MinP[row];
        float threshold = topK > 0 && topK < logits.Length ? KthLargest(logits, topK) : float.NegativeInfinity;
        _candidates.Clear(logits.Length);
        for (int id = 0; id < logits.Length; id++)
        {
            if (logits[id] >= threshold && Weight(logits[id], highest, inverse) is > 0 and var weight) _candidates.Add(id, weight);
        }
        ulong all = _candidates.Sum, dropped = 0;
        bool byWeight = topP < 1 || minP > 0;
        if (byWeight) dropped = Math.Max(_candidates.ByWeight((ulong)((double)(1 - MathF.Max(topP, LeastTopP)) * all)).Ahead, _candidates.Below((uint)(minP * One)));
        ulong target = dropped + Math.Min((ulong)(Uniform(sampling.Seeds[row], sampling.Draws[row]) * (all - dropped)), all - dropped - 1);
        return byWeight ? _candidates.ByWeight(target).Id : _candidates.ById(target);
    }

    /// <summary>floor(2^30 e^((logit - highest) * inverse)), by operations that every machine rounds alike.</summary>
    private static uint Weight(float logit, float highest, float inverse)
    {
        if (logit >= highest) return One;
        float x = (logit - highest) * inverse, whole = MathF.Floor(x * 1.44269502f);
        if (!(whole >= -31)) return 0;
        float f = MathF.FusedMultiplyAdd(x, 1.92596303e-8f, MathF.FusedMultiplyAdd(x, 1.44269502f, -whole)); // log2(e) in two parts
        float power = 2.16129381e-4f; // 2^f on [0, 1] within 7e-8
        power = MathF.FusedMultiplyAdd(power, f, 1.24678388e-3f);
        power = MathF.FusedMultiplyAdd(power, f, 9.67545249e-3f);
        power = MathF.FusedMultiplyAdd(power, f, 5.54852784e-2f);
        power = MathF.FusedMultiplyAdd(power, f, 2.40229309e-1f);
        power = MathF.FusedMultiplyAdd(power, f, 6.93147063e-1f);
        power = MathF.FusedMultiplyAdd(power, f, 1);
        return (uint)(power * One) >> -(int)whole;
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

    private static void Describe(ReadOnlySpan<float> logits, SamplingBatch sampling, int row)
    {
        float highest = float.NegativeInfinity;
        foreach (float value in logits) highest = MathF.Max(highest, value);
        double sum = 0;
        foreach (float value in logits) sum += Math.Exp(value - highest);
        double normaliser = highest + Math.Log(sum);
        sampling.LogProbs[row] = (float)(logits[sampling.Tokens[row]] - normaliser);
        float last = float.PositiveInfinity;
        int lastId = -1;
        for (int n = row * sampling.MaxWanted, end = n + sampling.Wanted[row]; n < end; n++)
        {
            // The largest behind the last one, equals by ascending id.
            int next = -1;
            for (int id = 0; id < logits.Length; id++)
            {
                if ((logits[id] < last || (logits[id] == last && id > lastId)) && (next < 0 || logits[id] > logits[next])) next = id;
            }
            (last, lastId) = (logits[next], next);
            sampling.LikeliestIds[n] = next;
            sampling.LikeliestLogProbs[n] = (float)(last - normaliser);
        }
    }
}
