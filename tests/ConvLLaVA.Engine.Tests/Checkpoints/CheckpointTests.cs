using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

public sealed class CheckpointTests : IDisposable
{
    private readonly TinyCheckpoint _tiny = new();

    public void Dispose() => _tiny.Dispose();

    [Fact]
    public void A_complete_checkpoint_opens_and_adds_up()
    {
        using Checkpoint checkpoint = _tiny.WriteLanguage().WriteTower("Tower-Name").Open();
        foreach ((string name, long[] shape) in _tiny.Language) Assert.Equal(shape, checkpoint.Get(name).Shape);
        foreach ((string name, long[] shape) in _tiny.Vision)
        {
            Assert.Equal(shape, checkpoint.GetVision(name).Shape);
            Assert.Same(checkpoint.GetVision(name), checkpoint.Get("model.vision_tower.vision_tower." + name));
        }
        // Tensor n of the file starts at 1000 n.
        Assert.Equal([1000f, 1001f], TensorConversion.ToFloat32(checkpoint.Get("model.layers.0.self_attn.q_proj.weight"))[..2]);
        static long Size(IEnumerable<(string, long[] Shape)> tensors) => tensors.Sum(tensor => tensor.Shape.Aggregate(1L, (product, extent) => product * extent));
        CheckpointSummary summary = checkpoint.Summary;
        Assert.Equal(Size(_tiny.Vision), summary.Vision.Parameters);
        Assert.Equal(Size(_tiny.Language[12..]), summary.Projector.Parameters);
        Assert.Equal(Size(_tiny.Language[..12]), summary.LanguageModel.Parameters);
        Assert.Equal(4 * (Size(_tiny.Vision) + Size(_tiny.Language)), summary.Total.Bytes);
        Assert.Equal([DType.Float32], summary.DTypes);
        Assert.Equal(2, summary.Files.Length);
        Assert.Equal(new FileInfo(summary.Files[0].Path).Length, summary.Files[0].Bytes);
        Assert.Empty(summary.Ignored);
        Assert.Equal(32, checkpoint.Preprocessor.ShortestEdge);
        Assert.Equal([1, 2], checkpoint.Vision.Depths);
        Assert.Equal(6, checkpoint.Config.MmHiddenSize);
        Assert.Equal(20, checkpoint.Generation.MaxLength);
        Assert.Throws<KeyNotFoundException>(() => checkpoint.Get("model.layers.1.mlp.up_proj.weight"));
    }

    [Fact]
    public void Disposing_twice_is_safe_and_closes_access()
    {
        Checkpoint checkpoint = _tiny.WriteLanguage().WriteTower("Tower-Name").Open();
        checkpoint.Dispose();
        checkpoint.Dispose();
        Assert.Throws<ObjectDisposedException>(() => checkpoint.Get("model.norm.weight"));
        Assert.Throws<ObjectDisposedException>(() => checkpoint.GetVision("embeddings.layernorm.bias"));
    }

    [Fact]
    public void Tokenizer_only_opens_no_weights()
    {
        _tiny.WriteLanguage();
        File.WriteAllText(Path.Combine(_tiny.Root, "model.safetensors"), "broken");
        using Checkpoint checkpoint = _tiny.Open(new CheckpointOptions { TokenizerOnly = true });
        Assert.Equal(12, checkpoint.Config.VocabSize);
        Assert.Equal(_tiny.Root, checkpoint.TokenizerDirectory);
        Assert.Throws<InvalidOperationException>(() => checkpoint.Vision);
        Assert.Throws<InvalidOperationException>(() => checkpoint.Summary);
    }

    [Fact]
    public void Missing_folder() => Refuses("The checkpoint folder", "does not exist");

    [Fact]
    public void Missing_configuration()
    {
        _tiny.Folder.Write("llm/readme", "");
        Refuses("config.json cannot be read");
    }

    [Fact]
    public void No_weights()
    {
        _tiny.WriteLanguage();
        File.Delete(Path.Combine(_tiny.Root, "model.safetensors"));
        Refuses(_tiny.Root, "holds no weights, expected one of model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json");
    }

    [Fact]
    public void Shards()
    {
        WriteShards("""{"weight_map":{MAP}}""");
        using Checkpoint checkpoint = _tiny.Open();
        Assert.Equal([8L], checkpoint.Get("model.norm.weight").Shape);
        Assert.Equal(3, checkpoint.Summary.Files.Length);
    }

    [Fact]
    public void Missing_shard()
    {
        string index = WriteShards("""{"weight_map":{MAP}}""");
        File.Delete(Path.Combine(_tiny.Root, "b.safetensors"));
        Refuses("The shard b.safetensors named by", index, "is missing");
    }

    [Fact]
    public void Index_naming_a_tensor_the_shard_lacks()
    {
        string index = WriteShards("""{"weight_map":{MAP,"model.ghost":"b.safetensors"}}""");
        Refuses(index, "places the tensor model.ghost in b.safetensors, but that file has no such tensor");
    }

    [Theory]
    [InlineData("../a.safetensors")]
    [InlineData("/etc/passwd")]
    [InlineData("..")]
    [InlineData("")]
    public void Index_that_leaves_its_folder(string shard)
    {
        WriteShards("{\"weight_map\":{MAP,\"x\":\"" + shard + "\"}}");
        Refuses("\"weight_map\" is", "expected a plain file name for x");
    }

    [Fact]
    public void Index_without_map()
    {
        WriteShards("{}");
        Refuses("\"weight_map\" is missing");
    }

    [Fact]
    public void One_tensor_in_two_shards()
    {
        WriteShards("""{"weight_map":{MAP}}""", overlap: 1);
        Refuses("The tensor model.layers.0.mlp.gate_proj.weight is both in", "expected it once");
    }

    [Fact]
    public void Missing_tensor()
    {
        _tiny.Language.RemoveAll(tensor => tensor.Name == "model.layers.0.mlp.up_proj.weight");
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        Refuses($"The tensor model.layers.0.mlp.up_proj.weight of shape [10, 8] is missing in {_tiny.Root}.");
    }

    [Fact]
    public void Misshapen_tensor()
    {
        _tiny.Language[3] = (_tiny.Language[3].Name, [8, 4]);
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        Refuses("The tensor model.layers.0.self_attn.v_proj.weight in", "model.safetensors has the shape [8, 4], expected [4, 8]");
    }

    [Fact]
    public void Unknown_tensor()
    {
        _tiny.Language.Add(("model.layers.0.self_attn.q_proj.bias", [8]));
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        Refuses("The tensor model.layers.0.self_attn.q_proj.bias in", "model.safetensors has no place in the model");
    }

    [Fact]
    public void Unknown_vision_tensor()
    {
        _tiny.Vision.Add(("head.weight", [1]));
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        Refuses("The tensor head.weight in", "has no place in the model");
    }

    [Fact]
    public void Missing_vision_tensor()
    {
        _tiny.Vision.RemoveAt(5);
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        Refuses("The tensor encoder.stages.0.layers.0.dwconv.bias of shape [4] is missing in", "Tower-Name");
    }

    [Fact]
    public void Integer_weights()
    {
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        string path = Path.Combine(_tiny.Root, "model.safetensors");
        string text = File.ReadAllText(path, System.Text.Encoding.Latin1);
        int at = text.IndexOf("F32", text.IndexOf("model.norm.weight", StringComparison.Ordinal), StringComparison.Ordinal);
        File.WriteAllText(path, text[..at] + "I32" + text[(at + 3)..], System.Text.Encoding.Latin1);
        Refuses("The tensor model.norm.weight in", "has the type int32, expected float32, float16 or bfloat16");
    }

    [Fact]
    public void Harmless_tensors_are_ignored_and_listed()
    {
        _tiny.Language.AddRange([("model.layers.0.self_attn.rotary_emb.inv_freq", [2]), ("model.image_newline", [8])]);
        _tiny.Vision.AddRange([("layernorm.weight", [6]), ("layernorm.bias", [6])]);
        using Checkpoint checkpoint = _tiny.WriteLanguage().WriteTower("Tower-Name").Open();
        Assert.Equal(["layernorm.bias", "layernorm.weight", "model.image_newline", "model.layers.0.self_attn.rotary_emb.inv_freq"], checkpoint.Summary.Ignored);
    }

    [Fact]
    public void Dropping_the_last_vision_block_ignores_its_tensors()
    {
        _tiny.Config["mm_vision_select_layer"] = "-2";
        using Checkpoint checkpoint = _tiny.WriteLanguage().WriteTower("Tower-Name").Open();
        Assert.Equal([1, 1], checkpoint.Vision.Depths);
        Assert.Equal(9, checkpoint.Summary.Ignored.Length);
        Assert.Throws<KeyNotFoundException>(() => checkpoint.GetVision("encoder.stages.1.layers.1.dwconv.weight"));
        _tiny.Vision.RemoveRange(_tiny.Vision.Count - 9, 9);
        using Checkpoint without = _tiny.WriteTower("Tower-Name").Open();
        Assert.Empty(without.Summary.Ignored);
    }

    [Fact]
    public void Tied_embeddings_serve_as_output_head()
    {
        _tiny.Config["tie_word_embeddings"] = "true";
        _tiny.Language.RemoveAt(11);
        using Checkpoint checkpoint = _tiny.WriteLanguage().WriteTower("Tower-Name").Open();
        Assert.Same(checkpoint.Get("model.embed_tokens.weight"), checkpoint.Get("lm_head.weight"));
    }

    [Fact]
    public void Tower_of_another_width()
    {
        _tiny.Config["mm_hidden_size"] = "7";
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        Refuses("\"mm_hidden_size\" is 7, expected 6, the width of the vision tower in");
    }

    [Fact]
    public void An_ignored_layer_choice_is_logged()
    {
        _tiny.Config["mm_vision_select_layer"] = "-3";
        RecordingLogger logger = new();
        using Checkpoint checkpoint = _tiny.WriteLanguage().WriteTower("Tower-Name").Open(new CheckpointOptions { Logger = logger });
        Assert.Contains(logger.Messages, message => message.Contains("mm_vision_select_layer is -3", StringComparison.Ordinal));
        Assert.Equal([1, 2], checkpoint.Vision.Depths);
    }

    [Fact]
    public void A_manifest_pins_every_file()
    {
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        string[] files = [.. Directory.GetFiles(_tiny.Folder.Root, "*", SearchOption.AllDirectories)];
        string Line(string file) => Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(file))) + "  " + Path.GetRelativePath(_tiny.Folder.Root, file);
        string manifest = _tiny.Folder.Write("SHA256SUMS", string.Join('\n', files.Select(Line)));
        CheckpointOptions options = new() { Sha256Manifest = manifest };
        _tiny.Open(options).Dispose();

        byte[] weights = File.ReadAllBytes(Path.Combine(_tiny.Root, "model.safetensors"));
        weights[^1] ^= 1;
        File.WriteAllBytes(Path.Combine(_tiny.Root, "model.safetensors"), weights);
        Refuses(options, "model.safetensors has the SHA-256 checksum", "SHA256SUMS");
        _tiny.Folder.Write("SHA256SUMS", string.Join('\n', files.Where(file => !file.EndsWith("model.safetensors", StringComparison.Ordinal)).Select(Line)));
        Refuses(options, "model.safetensors is not listed in");
        _tiny.Folder.Write("SHA256SUMS", "hello");
        Refuses(options, "has a line that is not a checksum");
    }

    private string WriteShards(string index, int overlap = 0)
    {
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        File.Delete(Path.Combine(_tiny.Root, "model.safetensors"));
        List<(string Name, long[] Shape)> first = _tiny.Language[..(5 + overlap)], second = _tiny.Language[5..];
        _tiny.Folder.Write("llm/a.safetensors", SafetensorsBytes.Of(first));
        _tiny.Folder.Write("llm/b.safetensors", SafetensorsBytes.Of(second));
        string map = string.Join(",", first[..5].Select(tensor => $"\"{tensor.Name}\":\"a.safetensors\"").Concat(second.Select(tensor => $"\"{tensor.Name}\":\"b.safetensors\"")));
        return _tiny.Folder.Write("llm/model.safetensors.index.json", index.Replace("MAP", map, StringComparison.Ordinal));
    }

    private void Refuses(params string[] expected) => Refuses(new CheckpointOptions(), expected);

    private void Refuses(CheckpointOptions options, params string[] expected)
    {
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => _tiny.Open(options));
        foreach (string part in expected) Assert.Contains(part, error.Message, StringComparison.Ordinal);
    }
}

/// <summary>Keeps the messages it receives.</summary>
internal sealed class RecordingLogger : ILogger
{
    public List<string> Messages { get; } = [];

    public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => true;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
        Messages.Add($"{logLevel}: {formatter(state, exception)}");
}
