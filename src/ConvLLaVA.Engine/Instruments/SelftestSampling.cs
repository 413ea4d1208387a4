using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

internal sealed partial class SelftestCases
{
    /// <summary>Tokens chosen from the logits of random states: greedy, drawn with every filter, with penalties, and their log-probabilities.</summary>
    public IEnumerable<SelftestCase> Sample(int hidden, int vocabulary, params int[] rowCounts)
    {
        (NormWeight norm, _) = RmsNormWeight(hidden);
        LinearWeight head = backend.LoadLinear([data.Linear(vocabulary, hidden)]);
        foreach (int rows in rowCounts)
        {
            Input input = Matrix(rows, hidden, 0);
            PagedBatch batch = InstrumentBackend.StepOf([.. Enumerable.Repeat(new SequencePiece(0, 1), rows)], BlockSize, 0);
            FillSampling(batch.Sampling, rows, vocabulary);
            yield return new("sample", $"[{rows}, {vocabulary}]", (device, workspace) =>
            {
                Tensor x = input.Upload(device, workspace), logits = workspace.Take(rows, vocabulary, DType.Float32), unchanged = workspace.Take(rows, vocabulary, DType.Float32);
                device.RunStep(batch, false, () => device.NormLogits(x, batch, norm, head, logits, workspace), () =>
                {
                    device.Copy(logits, unchanged);
                    device.Sample(logits, batch, workspace);
                });
                return unchanged;
            }, (actual, compare) =>
            {
                for (int row = 0; row < rows; row++) CheckRow(actual.AsSpan(row * vocabulary, vocabulary), batch.Sampling, row, compare);
            });
        }
    }

    /// <summary>Rows that differ in everything that can be asked for.</summary>
    private static void FillSampling(SamplingBatch sampling, int rows, int vocabulary)
    {
        const int Counted = 5;
        int wanted = Math.Min(3, vocabulary);
        sampling.Reset(rows, Counted, wanted);
        for (int row = 0; row < rows; row++)
        {
            sampling.Temperatures[row] = row % 4 == 0 ? 0 : 0.5f + (0.2f * (row % 5));
            sampling.TopK[row] = row % 3 == 0 ? 0 : 50;
            sampling.TopP[row] = row % 2 == 0 ? 1 : 0.9f;
            sampling.MinP[row] = row % 5 == 2 ? 0.05f : 0;
            sampling.RepetitionPenalties[row] = 1.2f;
            sampling.PresencePenalties[row] = 0.1f;
            sampling.FrequencyPenalties[row] = 0.05f;
            sampling.Seeds[row] = (ulong)(row * 7919) + 1;
            sampling.Draws[row] = (ulong)row;
            sampling.Counted[row] = row % 2 == 0 ? Counted : 0;
            sampling.Wanted[row] = row % 3 == 2 ? -1 : wanted;
            for (int i = 0; i < Counted; i++)
            {
                sampling.CountedIds[(row * Counted) + i] = ((row * 31) + (i * 13)) % vocabulary;
                sampling.Counts[(row * Counted) + i] = i + 1;
            }
        }
    }

    private static void CheckRow(ReadOnlySpan<float> logits, SamplingBatch sampling, int row, Comparison compare)
    {
        compare.Add(sampling.Tokens[row] == SelftestReference.Choose(logits, sampling, row) ? 1 : 0, 1);
        if (sampling.Wanted[row] < 0) return;
        float[] values = logits.ToArray();
        double highest = values.Max(), normaliser = highest + Math.Log(values.Sum(value => Math.Exp(value - highest)));
        compare.Add(sampling.LogProbs[row], values[sampling.Tokens[row]] - normaliser);
        int[] likeliest = [.. Enumerable.Range(0, values.Length).OrderByDescending(id => values[id]).ThenBy(id => id).Take(sampling.Wanted[row])];
        for (int n = 0; n < likeliest.Length; n++)
        {
            int at = (row * sampling.MaxWanted) + n;
            compare.Add(sampling.LikeliestIds[at] == likeliest[n] ? 1 : 0, 1);
            compare.Add(sampling.LikeliestLogProbs[at], values[likeliest[n]] - normaliser);
        }
    }
}
