using ConvLLaVA.Cuda;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>Embedding and the gated product.</summary>
public sealed class ElementwiseTests
{
    [Theory]
    [InlineData(Storage.F16, 64)]
    [InlineData(Storage.BF16, 1096)]
    [InlineData(Storage.F32, 36)]
    [InlineData(Storage.F16, 21)]
    [InlineData(Storage.F32, 7)]
    public void Embedding_copies_rows_and_leaves_pictures_alone(Storage storage, int hidden)
    {
        float[] table = Numbers.Normal(1, 11 * hidden, storage);
        int[] ids = [10, -1, 0, 3, 3, -200, 7];
        float[] result = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray output = run.Allocate(ids.Length * hidden, storage);
            run.Launch(Kernel.Compile("embed_tokens.cu", storage), "embed_tokens", new Dim3(ids.Length), 128, 0,
                run.Upload<int>(ids), run.Upload(table, storage), output, ids.Length, hidden);
            return run.Read(output);
        });
        for (int t = 0; t < ids.Length; t++)
        {
            float[] row = result[(t * hidden)..((t + 1) * hidden)];
            if (ids[t] < 0) Assert.All(row, value => Assert.True(float.IsNaN(value)));
            else Assert.Equal(table[(ids[t] * hidden)..((ids[t] + 1) * hidden)], row);
        }
    }

    [Theory]
    [InlineData(Storage.F16, 3, 64)]
    [InlineData(Storage.BF16, 2, 2200)]
    [InlineData(Storage.F32, 3, 1100)]
    [InlineData(Storage.F16, 5, 301)]
    [InlineData(Storage.F32, 1, 3)]
    public void Gated_product_equals_double_precision(Storage storage, int rows, int columns)
    {
        float[] gateUp = Numbers.Normal(2, rows * 2 * columns, storage, scale: 3);
        for (int i = 0; i < rows; i++) (gateUp[i * 2 * columns], gateUp[i * 2 * columns + columns - 1]) = (storage.Round(-120), storage.Round(110)); // e^x overflows
        float[] result = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray output = run.Allocate(rows * columns, storage);
            int width = columns % storage.Pack() == 0 ? storage.Pack() : 1;
            run.Launch(Kernel.Compile("silu_multiply.cu", storage), "silu_multiply", new Dim3((columns + 256 * width - 1) / (256 * width), rows), 256, 0,
                run.Upload(gateUp, storage), output, rows, columns);
            return run.Read(output);
        });
        double[] expected = new double[result.Length], slack = new double[result.Length];
        for (int i = 0; i < result.Length; i++)
        {
            double gate = gateUp[i / columns * 2 * columns + i % columns], up = gateUp[(i / columns * 2 + 1) * columns + i % columns];
            expected[i] = gate / (1 + Math.Exp(-gate)) * up;
            // The exponential's argument is rounded (an error of its size), then a handful of operations of 2^-22; below 1e-38 is zero.
            slack[i] = Math.Abs(expected[i]) * (8 + 2 * Math.Abs(gate)) * Numbers.Unit + 1e-36;
        }
        Numbers.AssertClose(expected, result, storage, i => slack[i], "silu_multiply");
    }
}
