using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Parity;

/// <summary>Compares a dump of the engine with one of PyTorch, by name.</summary>
internal static class DumpComparison
{
    private const double Tolerance = 1e-5; // relative L2, fp32 against fp32
    private const float ClearMargin = 1e-3f; // greedy tokens must agree while PyTorch's two best logits are at least this far apart

    /// <summary>Requires every tensor of <paramref name="reference"/> in <paramref name="ours"/>: integers equal, floats within a
    /// relative L2 of 1e-5, greedy tokens equal wherever the reference's margin is clear.</summary>
    public static void Check(string ours, string reference)
    {
        using SafetensorsFile a = SafetensorsFile.Open(ours);
        using SafetensorsFile b = SafetensorsFile.Open(reference);
        int compared = 0;
        foreach ((string name, WeightTensor expected) in b.Tensors)
        {
            switch (name)
            {
                case "generated_margins":
                    continue;
                case "generated_ids":
                    CheckGreedy(Integers(a.Tensors[name]), Integers(expected), Floats(b.Tensors["generated_margins"]));
                    break;
                case "logits.last":
                    WeightTensor logits = a.Tensors["logits"];
                    CheckFloats(name, Floats(logits)[^(int)logits.Shape[1]..], Floats(expected));
                    break;
                default:
                    WeightTensor actual = Assert.Contains(name, (IDictionary<string, WeightTensor>)new Dictionary<string, WeightTensor>(a.Tensors));
                    Assert.Equal(expected.Shape.AsEnumerable(), actual.Shape.AsEnumerable());
                    if (expected.DType == DType.Int64) Assert.Equal(Integers(expected), Integers(actual));
                    else CheckFloats(name, Floats(actual), Floats(expected));
                    break;
            }
            compared++;
        }
        Assert.True(compared >= 4, $"only {compared} tensors were compared");
    }

    public static float[] Floats(WeightTensor tensor) => TensorConversion.ToFloat32(tensor);

    public static long[] Integers(WeightTensor tensor) => MemoryMarshal.Cast<byte, long>(tensor.Bytes).ToArray();

    public static void CheckFloats(string name, ReadOnlySpan<float> actual, ReadOnlySpan<float> expected)
    {
        Assert.Equal(expected.Length, actual.Length);
        double difference = 0, size = 0;
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.True(float.IsFinite(actual[i]), $"{name}[{i}] is {actual[i]}");
            difference += Math.Pow((double)actual[i] - expected[i], 2);
            size += Math.Pow(expected[i], 2);
        }
        double relative = Math.Sqrt(difference / size);
        Assert.True(relative <= Tolerance, $"{name}: relative L2 {relative:E2}, expected at most {Tolerance:E0}");
    }

    public static void CheckGreedy(long[] actual, long[] expected, float[] margins)
    {
        int clear = Array.FindIndex(margins, margin => margin < ClearMargin);
        if (clear < 0) clear = expected.Length;
        Assert.True(clear > 0, "the reference has no clear first token: the fixture proves nothing");
        Assert.Equal(expected[..clear], actual[..Math.Min(clear, actual.Length)]);
        if (clear == expected.Length) Assert.Equal(expected.Length, actual.Length);
    }
}
