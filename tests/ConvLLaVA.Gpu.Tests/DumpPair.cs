using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Gpu.Tests;

/// <summary>Two dumps of one request, compared by name.</summary>
internal static class DumpPair
{
    /// <summary>Requires the same tensors in both, integers equal and floats within <paramref name="tolerance"/> (relative L2).</summary>
    /// <returns>The largest difference and the tensor it was found in.</returns>
    public static (double Worst, string Name) Compare(string actual, string expected, double tolerance, bool tokens = true)
    {
        using SafetensorsFile a = SafetensorsFile.Open(actual), b = SafetensorsFile.Open(expected);
        Assert.Equal(b.Tensors.Keys.Order(), a.Tensors.Keys.Order());
        (double Worst, string Name) found = (0, "");
        foreach ((string name, WeightTensor expectedTensor) in b.Tensors)
        {
            WeightTensor actualTensor = a.Tensors[name];
            Assert.Equal(expectedTensor.Shape.AsEnumerable(), actualTensor.Shape.AsEnumerable());
            if (expectedTensor.DType == DType.Int64)
            {
                if (tokens || name != "generated_ids")
                    Assert.Equal(MemoryMarshal.Cast<byte, long>(expectedTensor.Bytes).ToArray(), MemoryMarshal.Cast<byte, long>(actualTensor.Bytes).ToArray());
                continue;
            }
            double difference = Difference(name, TensorConversion.ToFloat32(actualTensor), TensorConversion.ToFloat32(expectedTensor));
            Assert.True(difference <= tolerance, $"{name}: relative L2 {difference:E2}, expected at most {tolerance:E0}");
            if (difference >= found.Worst) found = (difference, name);
        }
        Assert.True(b.Tensors.Count >= 4, $"only {b.Tensors.Count} tensors were compared");
        return found;
    }

    /// <summary>The relative L2 difference of one tensor.</summary>
    public static double Difference(string actual, string expected, string name)
    {
        using SafetensorsFile a = SafetensorsFile.Open(actual), b = SafetensorsFile.Open(expected);
        return Difference(name, TensorConversion.ToFloat32(a.Tensors[name]), TensorConversion.ToFloat32(b.Tensors[name]));
    }

    private static double Difference(string name, float[] actual, float[] expected)
    {
        double difference = 0, size = 0;
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.True(float.IsFinite(actual[i]), $"{name}[{i}] is {actual[i]}");
            difference += Math.Pow((double)actual[i] - expected[i], 2);
            size += Math.Pow(expected[i], 2);
        }
        return Math.Sqrt(difference / size);
    }
}
