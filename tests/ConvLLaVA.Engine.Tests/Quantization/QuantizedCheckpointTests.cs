using System.Text.Json;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Tests.Checkpoints;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Quantization;

/// <summary>Quantised folders: written as quantising while loading would do it, and refused with a sentence when broken.</summary>
public sealed unsafe class QuantizedCheckpointTests : IDisposable
{
    private const string Up = "model.layers.0.mlp.up_proj.weight";
    private readonly TinyCheckpoint _source = new();

    public static TheoryData<QuantFormat> Formats => QuantizedMatrix.Formats;

    private string Out => _source.Folder.At("out");

    public void Dispose() => _source.Dispose();

    [Theory, MemberData(nameof(Formats))]
    public void Write_ThenOpen_GivesTheBitsOfQuantisingWhileLoading(QuantFormat format)
    {
        WriteSource();
        Assert.Empty(QuantizedCheckpoint.Write(_source.Root, Out, new QuantOptions(format, Vision: true)));
        using Checkpoint stored = _source.Open(), written = Checkpoint.Open(Out);
        Assert.Equal(new QuantOptions(format, Vision: true), written.Config.Quantization);
        Assert.Equal(stored.Config with { Quantization = written.Config.Quantization, MmVisionTower = "vision_tower" }, written.Config with { ImageGridPinpoints = stored.Config.ImageGridPinpoints, EosTokenIds = stored.Config.EosTokenIds });
        Assert.Equal(stored.Summary.Total.Parameters, written.Summary.Total.Parameters);
        Assert.Equal([DType.Float32], written.Summary.DTypes); // the types of what is not quantised
        Assert.Empty(written.Summary.Ignored);
        int quantised = 0;
        foreach ((IReadOnlyDictionary<string, WeightTensor> before, IReadOnlyDictionary<string, WeightTensor> after) in new[] { (stored.Tensors.Language, written.Tensors.Language), (stored.Tensors.Vision, written.Tensors.Vision) })
        {
            Assert.Equal(before.Keys.Order(), after.Keys.Order());
            foreach ((string name, WeightTensor tensor) in before)
            {
                Assert.Equal(tensor.Shape, after[name].Shape);
                if (after[name].Quantized is not { } actual)
                {
                    Assert.Equal(TensorConversion.ToFloat32(tensor), TensorConversion.ToFloat32(after[name]));
                    continue;
                }
                quantised++;
                using QuantizedMatrix expected = QuantizedMatrix.Encode(format, TensorConversion.ToFloat32(tensor), (int)tensor.Shape[0]);
                Assert.Equal(expected.Decode(), QuantizedMatrix.Decode(actual));
                actual.Release(); // the pages come back when they are read again
                Assert.Equal(expected.Decode(), QuantizedMatrix.Decode(actual));
            }
        }
        Assert.Equal(7 + 2 + 6, quantised); // decoder, projector, two pointwise layers in each of three blocks
    }

    [Fact]
    public void Write_OptionsAndEmbeddedTower_DecideWhatIsQuantised()
    {
        _source.WriteLanguage(withVision: true).WriteTower("llm/vision_tower", weights: false);
        QuantizedCheckpoint.Write(_source.Root, Out, new QuantOptions(QuantFormat.Q8, LmHead: true));
        using Checkpoint written = Checkpoint.Open(Out);
        Assert.NotNull(written.Get("lm_head.weight").Quantized);
        Assert.NotNull(written.Get("model.mm_projector.2.weight").Quantized);
        Assert.Null(written.Get("model.embed_tokens.weight").Quantized);
        Assert.Null(written.Get("model.layers.0.input_layernorm.weight").Quantized);
        Assert.Null(written.GetVision("encoder.stages.0.layers.0.pwconv1.weight").Quantized);
    }

    [Fact]
    public void Write_OddColumns_StayAsTheyAre()
    {
        _source.Config["intermediate_size"] = "11";
        Resize("model.layers.0.mlp.gate_proj.weight", 11, 8);
        Resize(Up, 11, 8);
        Resize("model.layers.0.mlp.down_proj.weight", 8, 11);
        WriteSource();
        Assert.Equal(["model.layers.0.mlp.down_proj.weight"], QuantizedCheckpoint.Write(_source.Root, Out, new QuantOptions(QuantFormat.Q4)));
        using Checkpoint written = Checkpoint.Open(Out);
        Assert.Equal(DType.Float32, written.Get("model.layers.0.mlp.down_proj.weight").DType);
        Assert.NotNull(written.Get(Up).Quantized);
    }

    [Fact]
    public void Write_WhatCannotBe_LeavesNothing()
    {
        WriteSource();
        QuantizedCheckpoint.Write(_source.Root, Out, new QuantOptions(QuantFormat.Q8));
        Refused("quantised already (q8)", () => QuantizedCheckpoint.Write(Out, _source.Folder.At("again"), new QuantOptions(QuantFormat.Q4)));
        Refused("not empty", () => QuantizedCheckpoint.Write(_source.Root, Out, new QuantOptions(QuantFormat.Q4)));

        string weights = Path.Combine(_source.Root, "model.safetensors");
        byte[] bytes = File.ReadAllBytes(weights);
        BitConverter.TryWriteBytes(bytes.AsSpan(bytes.Length - (((8 * 6) + 8 + (8 * 8) + 8) * 4)), float.NaN); // the projector's first weight
        File.WriteAllBytes(weights, bytes);
        Refused("model.mm_projector.0.weight", () => QuantizedCheckpoint.Write(_source.Root, _source.Folder.At("nan"), new QuantOptions(QuantFormat.Q4)));
        Assert.Equal(["llm", "out", "Tower-Name"], Directory.GetDirectories(Path.GetDirectoryName(Out)!).Select(Path.GetFileName).Order(StringComparer.OrdinalIgnoreCase));
    }

    [Fact]
    public void Write_HeadThatIsTheEmbeddingTable_IsRefused()
    {
        _source.Config["tie_word_embeddings"] = "true";
        _source.Language.RemoveAll(tensor => tensor.Name == "lm_head.weight");
        WriteSource();
        Refused("embedding table", () => QuantizedCheckpoint.Write(_source.Root, Out, new QuantOptions(QuantFormat.Q8, LmHead: true)));
    }

    [Theory]
    [InlineData(Up + ".scales", "drop", Up + ".scales", "missing")]
    [InlineData(Up + ".codes", "drop", Up, "missing")]
    [InlineData(Up + ".scales", "short", Up + ".scales", "expected float16 [10, 1]")]
    [InlineData(Up + ".codes", "short", Up + ".codes", "expected uint8 [10, 4]")]
    [InlineData(Up + ".scales", "float", Up + ".scales", "float32")]
    public void Open_BrokenPart_IsRefused(string name, string harm, params string[] words)
    {
        WriteSource();
        QuantizedCheckpoint.Write(_source.Root, Out, new QuantOptions(QuantFormat.Q4));
        string path = Path.Combine(Out, "model.safetensors"), changed = path + ".new";
        using (SafetensorsFile file = SafetensorsFile.Open(path))
        {
            using var writer = new SafetensorsWriter(changed);
            foreach (WeightTensor tensor in file.Tensors.Values)
            {
                ReadOnlySpan<byte> bytes = tensor.Bytes;
                if (tensor.Name != name) writer.Add(tensor.Name, tensor.DType, tensor.Shape.AsSpan(), bytes);
                else if (harm == "short") writer.Add(tensor.Name, tensor.DType, [tensor.Shape[0] - 1, tensor.Shape[1]], bytes[..(int)(bytes.Length / tensor.Shape[0] * (tensor.Shape[0] - 1))]);
                else if (harm == "float") writer.Add(tensor.Name, tensor.Shape.AsSpan(), new float[tensor.ElementCount]);
            }
            writer.Complete();
        }
        File.Move(changed, path, overwrite: true);
        Refused(words, () => Checkpoint.Open(Out).Dispose());
    }

    [Fact]
    public void Open_TruncatedWeights_AreRefused()
    {
        WriteSource();
        QuantizedCheckpoint.Write(_source.Root, Out, new QuantOptions(QuantFormat.Nf4));
        string path = Path.Combine(Out, "model.safetensors");
        byte[] bytes = File.ReadAllBytes(path);
        File.WriteAllBytes(path, bytes[..^100]);
        Refused("model.safetensors", () => Checkpoint.Open(Out).Dispose());
    }

    [Theory]
    [InlineData(null, "convllava_quantization")]
    [InlineData("""{"format":"q5","version":1}""", "q5", "q4-128")]
    [InlineData("""{"format":"q4","version":2}""", "version", "2")]
    [InlineData("""{"format":"q8","version":1}""", "expected int8 [8, 8] for q8")]
    public void Open_ConfigThatDoesNotFit_IsRefused(string? field, params string[] words)
    {
        WriteSource();
        QuantizedCheckpoint.Write(_source.Root, Out, new QuantOptions(QuantFormat.Q4));
        string path = Path.Combine(Out, "config.json");
        using JsonDocument config = JsonDocument.Parse(File.ReadAllBytes(path));
        IEnumerable<string> fields = config.RootElement.EnumerateObject().Where(member => member.Name != "convllava_quantization").Select(member => $"\"{member.Name}\":{member.Value.GetRawText()}");
        if (field is not null) fields = fields.Append($"\"convllava_quantization\":{field}");
        File.WriteAllText(path, "{" + string.Join(",", fields) + "}");
        Refused(words, () => Checkpoint.Open(Out).Dispose());
    }

    private void WriteSource() => _source.WriteLanguage().WriteTower("Tower-Name");

    private void Resize(string name, params long[] shape) => _source.Language[_source.Language.FindIndex(tensor => tensor.Name == name)] = (name, shape);

    private static void Refused(string word, Action action) => Refused([word], action);

    private static void Refused(string[] words, Action action)
    {
        var error = Assert.Throws<InvalidInputException>(action);
        foreach (string word in words) Assert.Contains(word, error.Message, StringComparison.Ordinal);
    }
}
