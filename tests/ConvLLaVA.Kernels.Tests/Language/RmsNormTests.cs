using ConvLLaVA.Cuda;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>rms_norm.cu.</summary>
public sealed class RmsNormTests
{
    private const float Epsilon = 1e-5f;

    /// <summary>(rows, columns).</summary>
    public static TheoryData<int, int, Storage> Shapes()
    {
        var data = new TheoryData<int, int, Storage>();
        foreach (Storage storage in StorageExtensions.All)
        {
            foreach ((int rows, int columns) in ((int, int)[])[(1, 8), (3, 192), (2, 4096), (1, 5120), (2, 11008), (1, 1), (4, 13), (2, 2050)]) data.Add(rows, columns, storage);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Rms_norm_is_the_definition(int rows, int columns, Storage storage)
    {
        float[] x = Numbers.Normal(51, rows * columns, storage, scale: 2, mean: 0.2), weight = Numbers.Normal(52, columns, mean: 1);
        Kernel kernel = Kernel.Compile("rms_norm.cu", storage);
        float[] y = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray input = run.Upload(x, storage), output = rows % 2 == 0 ? input : run.Allocate(x.Length, storage);
            run.Launch(kernel, "rms_norm", new Dim3(rows), 256, 0, input, run.Upload(weight), output, rows, columns, Epsilon);
            return run.Read(output);
        });
        (double[] expected, double[] slack) = LinearReference.RmsNorm(x, columns, weight, Epsilon);
        Numbers.AssertClose(expected, y, storage, i => slack[i], $"rms_norm {rows}x{columns}");
    }

    [Theory]
    [InlineData(Storage.F32, 48)]
    [InlineData(Storage.F16, 192)]
    [InlineData(Storage.BF16, 37)]
    public void Gathered_rows_may_repeat_and_come_in_any_order(Storage storage, int columns)
    {
        int[] rowNumbers = [4, 0, 2, 2];
        float[] x = Numbers.Normal(53, 5 * columns, storage), weight = Numbers.Normal(54, columns, mean: 1);
        Kernel kernel = Kernel.Compile("rms_norm.cu", storage);
        float[] y = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray output = run.Allocate(rowNumbers.Length * columns, storage);
            run.Launch(kernel, "gather_rms_norm", new Dim3(rowNumbers.Length), 256, 0,
                run.Upload(x, storage), run.Upload<int>(rowNumbers), run.Upload(weight), output, rowNumbers.Length, columns, Epsilon);
            return run.Read(output);
        });
        (double[] all, double[] allSlack) = LinearReference.RmsNorm(x, columns, weight, Epsilon);
        double[] expected = [.. rowNumbers.SelectMany(row => all.AsSpan(row * columns, columns).ToArray())];
        double[] slack = [.. rowNumbers.SelectMany(row => allSlack.AsSpan(row * columns, columns).ToArray())];
        Numbers.AssertClose(expected, y, storage, i => slack[i], "gather_rms_norm");
    }
}
