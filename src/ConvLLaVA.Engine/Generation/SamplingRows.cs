using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Generation;

/// <summary>One row to choose a token for.</summary>
/// <param name="Options">How.</param>
/// <param name="State">What its request generated so far.</param>
internal readonly record struct SamplingRow(GenerationOptions Options, SamplerState State);

/// <summary>Requests' options and histories to a step's <see cref="SamplingBatch"/>, and its results back.</summary>
internal static class SamplingRows
{
    /// <summary>Writes the rows.</summary>
    public static void Fill(SamplingBatch batch, List<SamplingRow> rows, int vocabulary)
    {
        int maxCounted = 0, maxWanted = -1;
        foreach (SamplingRow row in rows)
        {
            if (Penalises(row.Options)) maxCounted = Math.Max(maxCounted, row.State.Counts.Count);
            maxWanted = Math.Max(maxWanted, Wanted(row.Options, vocabulary));
        }
        batch.Reset(rows.Count, maxCounted, maxWanted);
        for (int i = 0; i < rows.Count; i++)
        {
            (GenerationOptions options, SamplerState state) = rows[i];
            batch.Temperatures[i] = options.Temperature;
            batch.TopK[i] = options.TopK;
            batch.TopP[i] = options.TopP;
            batch.MinP[i] = options.MinP;
            batch.RepetitionPenalties[i] = options.RepetitionPenalty;
            batch.PresencePenalties[i] = options.PresencePenalty;
            batch.FrequencyPenalties[i] = options.FrequencyPenalty;
            batch.Seeds[i] = state.Seed;
            batch.Draws[i] = state.Draws;
            batch.Wanted[i] = Wanted(options, vocabulary);
            batch.Counted[i] = 0;
            if (!Penalises(options)) continue;
            foreach ((int id, int count) in state.Counts)
            {
                int at = (i * maxCounted) + batch.Counted[i]++;
                batch.CountedIds[at] = id;
                batch.Counts[at] = count;
            }
        }
    }

    /// <summary>The token of a row, which is booked in its state.</summary>
    /// <param name="batch">The results.</param>
    /// <param name="index">Which row.</param>
    /// <param name="row">What it was filled from.</param>
    /// <param name="entry">The token's probability under the unchanged logits, when asked for.</param>
    /// <exception cref="ConvLlavaException">The logits were not numbers.</exception>
    public static int Take(SamplingBatch batch, int index, SamplingRow row, out LogProbEntry? entry)
    {
        int token = batch.Tokens[index];
        if (token < 0) throw new ConvLlavaException("The model produced logits that are not numbers; its weights or the picture's features are broken.");
        row.State.Book(token, row.Options.Samples, Penalises(row.Options));
        entry = null;
        if (batch.Wanted[index] < 0) return token;
        var likeliest = new TokenLogProb[batch.Wanted[index]];
        for (int n = 0; n < likeliest.Length; n++)
        {
            int at = (index * batch.MaxWanted) + n;
            likeliest[n] = new TokenLogProb(batch.LikeliestIds[at], batch.LikeliestLogProbs[at]);
        }
        entry = new LogProbEntry(new TokenLogProb(token, batch.LogProbs[index]), likeliest);
        return token;
    }

    private static bool Penalises(GenerationOptions options) => options.RepetitionPenalty != 1 || options.PresencePenalty != 0 || options.FrequencyPenalty != 0;

    private static int Wanted(GenerationOptions options, int vocabulary) => options.LogProbs ? Math.Min(options.TopLogProbs, vocabulary) : -1;
}
