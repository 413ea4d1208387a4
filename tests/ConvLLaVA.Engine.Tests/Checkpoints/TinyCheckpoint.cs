using ConvLLaVA.Engine.Checkpoints;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

/// <summary>Writes a complete, very small checkpoint in the layout of the published ones. Names and shapes are spelled out here and
/// not taken from the code under test.</summary>
internal sealed class TinyCheckpoint : IDisposable
{
    private const string VisionPrefix = "model.vision_tower.vision_tower.";

    public const string VisionJson = """{"model_type":"convnext","depths":[1,2],"hidden_sizes":[4,6],"num_stages":2,"patch_size":4,"image_size":32}""";

    public const string PreprocessorJson = """{"size":{"shortest_edge":32},"crop_size":{"height":32,"width":32},"resample":3}""";

    public TestFolder Folder { get; } = new();

    /// <summary>The checkpoint's folder, one below the temporary one so that it can have siblings.</summary>
    public string Root => Folder.At("llm");

    public Dictionary<string, string> Config { get; } = new()
    {
        ["model_type"] = "\"llava\"",
        ["hidden_size"] = "8",
        ["intermediate_size"] = "10",
        ["num_hidden_layers"] = "1",
        ["num_attention_heads"] = "2",
        ["num_key_value_heads"] = "1",
        ["vocab_size"] = "12",
        ["mm_hidden_size"] = "6",
        ["mm_projector_type"] = "\"mlp2x_gelu\"",
        ["mm_vision_tower"] = "\"Some/Tower-Name\"",
    };

    public List<(string Name, long[] Shape)> Language { get; } =
    [
        ("model.embed_tokens.weight", [12, 8]),
        ("model.layers.0.self_attn.q_proj.weight", [8, 8]),
        ("model.layers.0.self_attn.k_proj.weight", [4, 8]),
        ("model.layers.0.self_attn.v_proj.weight", [4, 8]),
        ("model.layers.0.self_attn.o_proj.weight", [8, 8]),
        ("model.layers.0.mlp.gate_proj.weight", [10, 8]),
        ("model.layers.0.mlp.up_proj.weight", [10, 8]),
        ("model.layers.0.mlp.down_proj.weight", [8, 10]),
        ("model.layers.0.input_layernorm.weight", [8]),
        ("model.layers.0.post_attention_layernorm.weight", [8]),
        ("model.norm.weight", [8]),
        ("lm_head.weight", [12, 8]),
        ("model.mm_projector.0.weight", [8, 6]),
        ("model.mm_projector.0.bias", [8]),
        ("model.mm_projector.2.weight", [8, 8]),
        ("model.mm_projector.2.bias", [8]),
    ];

    public List<(string Name, long[] Shape)> Vision { get; } =
    [
        ("embeddings.patch_embeddings.weight", [4, 3, 4, 4]),
        ("embeddings.patch_embeddings.bias", [4]),
        ("embeddings.layernorm.weight", [4]),
        ("embeddings.layernorm.bias", [4]),
        .. Block("encoder.stages.0.layers.0.", 4),
        ("encoder.stages.1.downsampling_layer.0.weight", [4]),
        ("encoder.stages.1.downsampling_layer.0.bias", [4]),
        ("encoder.stages.1.downsampling_layer.1.weight", [6, 4, 2, 2]),
        ("encoder.stages.1.downsampling_layer.1.bias", [6]),
        .. Block("encoder.stages.1.layers.0.", 6),
        .. Block("encoder.stages.1.layers.1.", 6),
    ];

    /// <summary>Writes configuration and language model.</summary>
    public TinyCheckpoint WriteLanguage(bool withVision = false)
    {
        Folder.Write("llm/config.json", "{" + string.Join(",", Config.Select(pair => $"\"{pair.Key}\":{pair.Value}")) + "}");
        IEnumerable<(string, long[])> vision = Vision.Select(tensor => (VisionPrefix + tensor.Name, tensor.Shape));
        Folder.Write("llm/model.safetensors", SafetensorsBytes.Of(withVision ? Language.Concat(vision) : Language));
        return this;
    }

    /// <summary>Writes a tower folder (path below the temporary folder), complete unless told otherwise.</summary>
    public TinyCheckpoint WriteTower(string folder, bool weights = true, bool config = true, bool preprocessor = true)
    {
        if (weights) Folder.Write($"{folder}/model.safetensors", SafetensorsBytes.Of(Vision));
        if (config) Folder.Write($"{folder}/config.json", VisionJson);
        if (preprocessor) Folder.Write($"{folder}/preprocessor_config.json", PreprocessorJson);
        return this;
    }

    public Checkpoint Open(CheckpointOptions? options = null) => Checkpoint.Open(Root, options);

    public void Dispose() => Folder.Dispose();

    private static IEnumerable<(string Name, long[] Shape)> Block(string name, long c) =>
    [
        (name + "dwconv.weight", [c, 1, 7, 7]), (name + "dwconv.bias", [c]), (name + "layernorm.weight", [c]), (name + "layernorm.bias", [c]),
        (name + "pwconv1.weight", [4 * c, c]), (name + "pwconv1.bias", [4 * c]), (name + "pwconv2.weight", [c, 4 * c]), (name + "pwconv2.bias", [c]),
        (name + "layer_scale_parameter", [c]),
    ];
}
