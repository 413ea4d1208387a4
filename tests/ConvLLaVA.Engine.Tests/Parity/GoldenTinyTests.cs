using System.Text.Json;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Images;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Text;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Parity;

/// <summary>The specification's tiny model: weights by an integer rule, a picture by a pixel formula, activations and logits
/// of the original code. It has no tokenizer, so the prompt is ids and the networks are driven directly.</summary>
public sealed class GoldenTinyTests : IDisposable
{
    private static readonly string Folder = Path.Combine(Repository.Fixtures, "models");
    private readonly string _scratch = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public void Dispose() => Directory.Delete(_scratch, true);

    [Theory]
    [InlineData(CpuPath.Auto)]
    [InlineData(CpuPath.Avx512)]
    [InlineData(CpuPath.Avx2)]
    [InlineData(CpuPath.Vector128)]
    [InlineData(CpuPath.Scalar)]
    public void The_networks_compute_what_the_original_does(CpuPath path)
    {
        if (!CpuPaths.IsSupported(path)) Assert.Skip($"This processor has no {path}.");
        int[] ids = [1, 5, 9, 31, LlamaTokenizer.ImageTokenIndex, 13, 7, 44];
        using Checkpoint checkpoint = Checkpoint.Open(Path.Combine(Folder, "golden-tiny"));
        using var backend = new CpuBackend(2, path);
        var model = new LlavaModel(backend, checkpoint, checkpoint.Get, checkpoint.GetVision);
        RgbImage image = ImageDecoder.Decode(File.ReadAllBytes(Path.Combine(Folder, "images", "golden.png")), "golden.png", new ImageLimits());
        float[] lut = new ImagePreprocessor(new PreprocessOptions { CropSize = 128 }).Normalization.Values.ToArray();
        var images = new PreparedImages([image.Pixels], [1], image.Height, image.Width, lut, 4);
        int[] expanded = [1, 5, 9, 31, -1, -2, -3, -4, 13, 7, 44];
        var prompt = new PreparedPrompt("", ids, expanded, images);

        string file = Path.Combine(_scratch, "dump.safetensors");
        using (var writer = new SafetensorsWriter(file))
        {
            new RequestDump(model, backend, prompt, DumpTensors.All, writer).Run(CancellationToken.None);
            writer.Add("generated_ids", [10], Greedy(model, backend, expanded, images, 10));
            writer.Complete();
        }
        DumpComparison.Check(file, Path.Combine(Folder, "golden-tiny.dump.safetensors"));
        CheckGolden(file);
    }

    /// <summary>The same against the numbers of the specification itself, which the original code gave (golden.json, tiny_model).</summary>
    private static void CheckGolden(string file)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Folder, "golden-tiny.json")));
        JsonElement golden = document.RootElement;
        using SafetensorsFile dump = SafetensorsFile.Open(file);
        CheckSums("vision.hidden_states.0", golden.GetProperty("embeddings_out"));
        int states = golden.GetProperty("hidden_states").GetArrayLength();
        Assert.Equal(6, states);
        for (int i = 0; i < states; i++) CheckSums($"vision.hidden_states.{i}", golden.GetProperty("hidden_states")[i]);
        CheckSums("image_features", golden.GetProperty("features"));
        CheckSums("projected_features", golden.GetProperty("projected"));
        WeightTensor logits = dump.Tensors["logits"];
        DumpComparison.CheckFloats("logits", DumpComparison.Floats(logits)[^(int)logits.Shape[1]..], Floats(golden.GetProperty("prefill_last_logits")));
        Assert.Equal(golden.GetProperty("prompt_ids").EnumerateArray().Select(id => id.GetInt64()), DumpComparison.Integers(dump.Tensors["input_ids"]));
        Assert.Equal(golden.GetProperty("greedy_tokens").EnumerateArray().Select(id => id.GetInt64()), DumpComparison.Integers(dump.Tensors["generated_ids"]));

        void CheckSums(string name, JsonElement expected)
        {
            WeightTensor tensor = dump.Tensors[name];
            Assert.Equal(expected.GetProperty("shape").EnumerateArray().Select(extent => extent.GetInt64()), tensor.Shape);
            float[] values = DumpComparison.Floats(tensor);
            double size = expected.GetProperty("abssum").GetDouble();
            Assert.InRange(values.Sum(value => (double)value), expected.GetProperty("sum").GetDouble() - (1e-5 * size), expected.GetProperty("sum").GetDouble() + (1e-5 * size));
            Assert.InRange(values.Sum(value => Math.Abs((double)value)), size * (1 - 1e-5), size * (1 + 1e-5));
            DumpComparison.CheckFloats(name, values[..4], Floats(expected.GetProperty("first4")));
            DumpComparison.CheckFloats(name, values[^2..], Floats(expected.GetProperty("last2")));
        }
    }

    private static float[] Floats(JsonElement list) => [.. list.EnumerateArray().Select(value => value.GetSingle())];

    /// <summary>Greedy decoding by running the whole prefix again for each token: slow, and with nothing to get wrong.</summary>
    private long[] Greedy(LlavaModel model, CpuBackend backend, int[] prompt, PreparedImages images, int count)
    {
        var tokens = new List<int>(prompt);
        for (int i = 0; i < count; i++)
        {
            string file = Path.Combine(_scratch, $"step{i}.safetensors");
            using (var writer = new SafetensorsWriter(file))
            {
                new RequestDump(model, backend, new PreparedPrompt("", [.. tokens], [.. tokens], images), DumpTensors.Parse("logits"), writer).Run(CancellationToken.None);
                writer.Complete();
            }
            using SafetensorsFile dump = SafetensorsFile.Open(file);
            WeightTensor logits = dump.Tensors["logits"];
            float[] last = DumpComparison.Floats(logits)[^(int)logits.Shape[1]..];
            tokens.Add(Array.IndexOf(last, last.Max()));
        }
        return [.. tokens.Skip(prompt.Length).Select(id => (long)id)];
    }
}
