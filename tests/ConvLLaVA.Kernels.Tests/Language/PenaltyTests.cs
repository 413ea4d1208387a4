using ConvLLaVA.Cuda;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>Penalties and log-probabilities.</summary>
public sealed class PenaltyTests
{
    [Theory]
    [InlineData(100, 64)]
    [InlineData(1111, 512)]
    public void Penalties_are_the_cpu_samplers_bit_for_bit(int vocabulary, int block)
    {
        const int Rows = 4, MaxCounted = 9;
        var random = new Random(vocabulary);
        float[] logits = Numbers.Normal(vocabulary, Rows * vocabulary, scale: 4);
        float[] penalties = [1.3f, 1, 0.7f, 1.1f, 0.1f, 0, 0.2f, -0.3f, 0.3f, 0, 0.01f, 0.77f]; // repetition, presence, frequency
        int[] counted = [3, 0, 9, 7], ids = new int[Rows * MaxCounted], counts = new int[Rows * MaxCounted];
        Array.Fill(ids, int.MinValue / 4);
        float[] expected = [.. logits];
        for (int row = 0; row < Rows; row++)
        {
            int[] tokens = [.. Enumerable.Range(0, vocabulary)];
            random.Shuffle(tokens);
            for (int j = 0; j < counted[row]; j++)
            {
                int id = ids[row * MaxCounted + j] = tokens[j], count = counts[row * MaxCounted + j] = random.Next(1, 20);
                float value = logits[row * vocabulary + id];
                value = value > 0 ? value / penalties[row] : value * penalties[row];
                expected[row * vocabulary + id] = value - penalties[Rows + row] - (penalties[2 * Rows + row] * count);
            }
        }
        float[] actual = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray output = run.Allocate(logits.Length, Storage.F32);
            run.Launch(Kernel.Compile("penalise.cu", Storage.F32), "penalise", new Dim3(Rows), block, 0, run.Upload(logits), run.Upload(penalties),
                run.Upload<int>(counted), run.Upload<int>(ids), run.Upload<int>(counts), MaxCounted, output, Rows, vocabulary);
            return run.Read(output);
        });
        Assert.Equal(expected, actual);
    }

    [Theory]
    [InlineData(30, 32)]
    [InlineData(1500, 256)]
    public void Log_probabilities_equal_double_precision(int vocabulary, int block)
    {
        const int MaxWanted = 20;
        int[] wanted = [20, -1, 0, 5], tokens = [3, 4, 5, 6];
        float[] logits = Numbers.Normal(1, wanted.Length * vocabulary, scale: 4);
        for (int i = 0; i < vocabulary; i++) logits[3 * vocabulary + i] = MathF.Round(logits[3 * vocabulary + i]); // many equals
        int[] actualIds = [];
        float[] all = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray chosen = run.Allocate(wanted.Length, Storage.F32), ids = run.Allocate(wanted.Length * MaxWanted, Storage.F32);
            DeviceArray values = run.Allocate(wanted.Length * MaxWanted, Storage.F32);
            run.Launch(Kernel.Compile("token_logprobs.cu", Storage.F32), "token_logprobs", new Dim3(wanted.Length), block, 0,
                run.Upload(logits), run.Upload<int>(tokens), run.Upload<int>(wanted), chosen, ids, values, wanted.Length, vocabulary, MaxWanted);
            actualIds = run.Read<int>(ids);
            return [.. run.Read(chosen), .. run.Read(values)];
        });
        float[] actual = all[..wanted.Length], actualValues = all[wanted.Length..];
        for (int row = 0; row < wanted.Length; row++)
        {
            float[] x = logits[(row * vocabulary)..((row + 1) * vocabulary)];
            double normaliser = x.Max() + Math.Log(x.Sum(value => Math.Exp(value - x.Max())));
            // fp32: the exponentials' sum within 2^-20 of its size, and roundings of numbers up to 32.
            if (wanted[row] < 0) Assert.True(float.IsNaN(actual[row]));
            else Assert.Equal(x[tokens[row]] - normaliser, actual[row], 1e-5);
            int[] likeliest = [.. Enumerable.Range(0, vocabulary).OrderByDescending(id => x[id]).ThenBy(id => id).Take(Math.Max(0, wanted[row]))];
            Assert.Equal(likeliest, actualIds[(row * MaxWanted)..(row * MaxWanted + likeliest.Length)]);
            for (int n = 0; n < likeliest.Length; n++) Assert.Equal(x[likeliest[n]] - normaliser, actualValues[row * MaxWanted + n], 1e-5);
            for (int n = likeliest.Length; n < MaxWanted; n++) Assert.True(float.IsNaN(actualValues[row * MaxWanted + n]));
        }
    }
}
