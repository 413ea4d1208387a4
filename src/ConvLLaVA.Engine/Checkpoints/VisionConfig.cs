using System.Collections.Immutable;
using System.Text;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary><c>config.json</c> of the ConvNeXt vision tower. A missing field takes the default of transformers' ConvNextConfig.
/// <c>layer_norm_eps</c> is not read: it belongs to a final norm that is never run; every norm that is uses
/// <see cref="LayerNormEps"/>.</summary>
public sealed record VisionConfig
{
    /// <summary>Epsilon of every LayerNorm in the tower (fixed in the model code, not configurable).</summary>
    public const double LayerNormEps = 1e-6;

    /// <summary>Blocks per stage that are run. With <c>mm_vision_select_layer</c> -2 a <see cref="Checkpoint"/> lowers the last by
    /// one; <see cref="ConfiguredDepths"/> keeps what the file says.</summary>
    public required ImmutableArray<int> Depths { get; init; }

    /// <summary><c>depths</c> as in the file.</summary>
    public required ImmutableArray<int> ConfiguredDepths { get; init; }

    /// <summary><c>hidden_sizes</c>: channels per stage.</summary>
    public required ImmutableArray<int> HiddenSizes { get; init; }

    /// <summary><c>num_channels</c> of the image: always 3.</summary>
    public int NumChannels { get; init; } = 3;

    /// <summary><c>patch_size</c>: kernel and stride of the stem, in pixels.</summary>
    public int PatchSize { get; init; } = 4;

    /// <summary><c>image_size</c> in pixels, for information: the size that counts is the preprocessor's.</summary>
    public int ImageSize { get; init; } = 224;

    /// <summary>Number of stages (published: 5).</summary>
    public int NumStages => HiddenSizes.Length;

    /// <summary>Channels the tower hands to the projector.</summary>
    public int OutputSize => HiddenSizes[^1];

    /// <summary>Pixels of the image per side of one visual token: the stem's stride times 2 for every later stage.</summary>
    public int TotalStride => PatchSize << (NumStages - 1);

    /// <summary>Reads <paramref name="path"/>.</summary>
    /// <exception cref="InvalidInputException">The file cannot be read or describes no tower this engine runs.</exception>
    public static VisionConfig Load(string path) => JsonFields.Load(path, Read);

    /// <summary>Reads JSON text; <paramref name="source"/> names it in messages.</summary>
    /// <exception cref="InvalidInputException">The text describes no tower this engine runs.</exception>
    public static VisionConfig Parse(string json, string source) => JsonFields.Parse(Encoding.UTF8.GetBytes(json), source, Read);

    /// <summary>The same tower without the last block of its last stage (<c>mm_vision_select_layer</c> -2).</summary>
    public VisionConfig WithoutLastBlock() => this with { Depths = ConfiguredDepths.SetItem(NumStages - 1, ConfiguredDepths[^1] - 1) };

    private static VisionConfig Read(JsonFields fields)
    {
        string type = fields.String("model_type", "convnext")!;
        if (type != "convnext") throw fields.Wrong("model_type", $"\"{type}\"", "\"convnext\"");
        string act = fields.String("hidden_act", "gelu")!;
        if (act != "gelu") throw fields.Wrong("hidden_act", $"\"{act}\"", "\"gelu\"");
        // With a value of zero transformers leaves the layer_scale_parameter tensors out.
        fields.Number("layer_scale_init_value", 1e-6, double.Epsilon, 1e6);

        ImmutableArray<int> sizes = fields.Ints("hidden_sizes", 1, LlavaConfig.MaxSize, 8) ?? [96, 192, 384, 768];
        ImmutableArray<int> depths = fields.Ints("depths", 1, LlavaConfig.MaxLayers, 8) ?? [3, 3, 9, 3];
        if (depths.Length != sizes.Length)
        {
            throw fields.Wrong("depths", $"a list of {depths.Length}", $"one entry for each of the {sizes.Length} hidden_sizes");
        }
        int stages = fields.Int("num_stages", depths.Length, 1, 8);
        if (stages != depths.Length) throw fields.Wrong("num_stages", LlavaConfig.Text(stages), $"{depths.Length}, the length of depths");
        return new VisionConfig
        {
            Depths = depths,
            ConfiguredDepths = depths,
            HiddenSizes = sizes,
            NumChannels = fields.Int("num_channels", 3, 3, 3),
            PatchSize = fields.Int("patch_size", 4, 1, 64),
            ImageSize = fields.Int("image_size", 224, 1, LlavaConfig.MaxSize),
        };
    }
}
