using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using System.Text.Json;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>A width and a height in pixels.</summary>
/// <param name="Width">Pixels per row.</param>
/// <param name="Height">Rows.</param>
public readonly record struct PixelSize(int Width, int Height);

/// <summary><c>config.json</c> of a LLaVA checkpoint: the LLaMA decoder and everything named <c>mm_*</c>. A missing field takes
/// the value that transformers 4.39.3 and the LLaVA code give it, which is not always the published value.</summary>
public sealed record LlavaConfig
{
    internal const int MaxSize = 1_000_000;
    internal const int MaxLayers = 1_000;

    /// <summary><c>hidden_size</c>: width of the residual stream; default 4096.</summary>
    public int HiddenSize { get; init; } = 4096;

    /// <summary><c>intermediate_size</c>: width of the gated MLP; default 11008.</summary>
    public int IntermediateSize { get; init; } = 11008;

    /// <summary><c>num_hidden_layers</c>; default 32.</summary>
    public int NumHiddenLayers { get; init; } = 32;

    /// <summary><c>num_attention_heads</c>: query heads; default 32.</summary>
    public int NumAttentionHeads { get; init; } = 32;

    /// <summary><c>num_key_value_heads</c>; default: as many as query heads. Divides <see cref="NumAttentionHeads"/>.</summary>
    public int NumKeyValueHeads { get; init; } = 32;

    /// <summary><c>head_dim</c>: elements of one head, always even; default <c>hidden_size / num_attention_heads</c>.</summary>
    public int HeadDim { get; init; } = 128;

    /// <summary><c>vocab_size</c>: rows of the embedding table and of the output head; default 32000.</summary>
    public int VocabSize { get; init; } = 32000;

    /// <summary><c>max_position_embeddings</c>: tokens the decoder was built for; default 2048 (published: 4096).</summary>
    public int MaxPositionEmbeddings { get; init; } = 2048;

    /// <summary><c>rms_norm_eps</c>; default 1e-6 (published: 1e-5).</summary>
    public double RmsNormEps { get; init; } = 1e-6;

    /// <summary><c>rope_theta</c>: base of the rotary frequencies; default 10000.</summary>
    public double RopeTheta { get; init; } = 10000;

    /// <summary>Factor of linear <c>rope_scaling</c>: positions are divided by it; 1 when <c>rope_scaling</c> is null.</summary>
    public double RopeScalingFactor { get; init; } = 1;

    /// <summary><c>tie_word_embeddings</c>: the output head is the embedding table; default false.</summary>
    public bool TieWordEmbeddings { get; init; }

    /// <summary><c>bos_token_id</c>; default 1.</summary>
    public int BosTokenId { get; init; } = 1;

    /// <summary><c>eos_token_id</c>, one or several; default 2.</summary>
    public ImmutableArray<int> EosTokenIds { get; init; } = [2];

    /// <summary><c>pad_token_id</c>; null when missing or negative.</summary>
    public int? PadTokenId { get; init; }

    /// <summary><c>mm_projector_type</c>: <c>linear</c> (the default), <c>identity</c> or <c>mlpNx_gelu</c>.</summary>
    public string MmProjectorType { get; init; } = "linear";

    /// <summary>Linear layers of the projector: 0 for <c>identity</c>, 1 for <c>linear</c>, N for <c>mlpNx_gelu</c>.</summary>
    public int MmProjectorLayers { get; init; } = 1;

    /// <summary><c>mm_hidden_size</c>: channels the vision tower hands over. Null when the field is missing; a
    /// <see cref="Checkpoint"/> always fills it in.</summary>
    public int? MmHiddenSize { get; init; }

    /// <summary><c>mm_vision_tower</c>: folder or hub name of the vision tower; null when missing.</summary>
    public string? MmVisionTower { get; init; }

    /// <summary><c>mm_vision_select_layer</c> as written; default -1. See <see cref="DropsLastVisionBlock"/>.</summary>
    public int MmVisionSelectLayer { get; init; } = -1;

    /// <summary>True when the last block of the tower's last stage is not run (<c>mm_vision_select_layer</c> -2). Every other
    /// value means the output of the last stage, as the ConvNeXt forward pass ignores it.</summary>
    public bool DropsLastVisionBlock => MmVisionSelectLayer == -2;

    /// <summary><c>mm_vision_select_feature</c>; default <c>patch</c>. The ConvNeXt tower does not use it.</summary>
    public string MmVisionSelectFeature { get; init; } = "patch";

    /// <summary><c>mm_use_im_start_end</c>: wrap the image placeholder into two more special tokens; default false.</summary>
    public bool MmUseImStartEnd { get; init; }

    /// <summary><c>mm_use_im_patch_token</c>; default <b>true</b> (published: false).</summary>
    public bool MmUseImPatchToken { get; init; } = true;

    /// <summary><c>mm_patch_merge_type</c>; default <c>flat</c>.</summary>
    public string MmPatchMergeType { get; init; } = "flat";

    /// <summary><c>image_aspect_ratio</c>: <c>pad</c>, <c>anyres</c>, …; null when missing (centre crop).</summary>
    public string? ImageAspectRatio { get; init; }

    /// <summary><c>image_grid_pinpoints</c>: candidate canvas sizes of <c>anyres</c>; empty when missing.</summary>
    public ImmutableArray<PixelSize> ImageGridPinpoints { get; init; } = [];

    /// <summary><c>tokenizer_model_max_length</c> in tokens; null = no limit.</summary>
    public int? TokenizerModelMaxLength { get; init; }

    /// <summary><c>tokenizer_padding_side</c>; default <c>right</c>.</summary>
    public string TokenizerPaddingSide { get; init; } = "right";

    /// <summary>Name of the field that says how weights are quantised.</summary>
    public const string QuantizationField = "convllava_quantization";

    /// <summary>How the weights in the files are quantised, or null when they are not.</summary>
    public QuantOptions? Quantization { get; init; }

    /// <summary><c>torch_dtype</c>: the precision the weights were saved in, as a hint; null when missing.</summary>
    public DType? TorchDType { get; init; }

    /// <summary>Reads <paramref name="path"/>.</summary>
    /// <exception cref="InvalidInputException">The file cannot be read or describes no model this engine runs.</exception>
    public static LlavaConfig Load(string path) => JsonFields.Load(path, Read);

    /// <summary>Reads JSON text; <paramref name="source"/> names it in messages.</summary>
    /// <exception cref="InvalidInputException">The text describes no model this engine runs.</exception>
    public static LlavaConfig Parse(string json, string source) => JsonFields.Parse(Encoding.UTF8.GetBytes(json), source, Read);

    private static LlavaConfig Read(JsonFields fields)
    {
        string? type = fields.String("model_type");
        if (type is not ("llava" or "llava_llama"))
        {
            throw fields.Wrong("model_type", type is null ? "missing" : $"\"{type}\"", "\"llava\" or \"llava_llama\"");
        }
        if (fields.Has("text_config"))
        {
            throw new InvalidInputException(
                $"{fields.File} has a \"text_config\" (the layout of the llava-hf conversions), expected the original LLaVA layout with \"hidden_size\" on top.");
        }
        if (fields.String("hidden_act", "silu") is not "silu" and string act) throw fields.Wrong("hidden_act", $"\"{act}\"", "\"silu\"");
        if (fields.Bool("attention_bias", false)) throw fields.Wrong("attention_bias", "true", "false");
        if (fields.Bool("mlp_bias", false)) throw fields.Wrong("mlp_bias", "true", "false");

        int hidden = fields.Int("hidden_size", 4096, 1, MaxSize);
        int heads = fields.Int("num_attention_heads", 32, 1, MaxSize);
        int keyValueHeads = fields.Int("num_key_value_heads", heads, 1, MaxSize);
        int headDim = HeadSize(fields, hidden, heads);
        if (heads % keyValueHeads != 0)
        {
            throw fields.Wrong("num_key_value_heads", Text(keyValueHeads), $"a divisor of num_attention_heads, which is {Text(heads)}");
        }
        int vocabulary = fields.Int("vocab_size", 32000, 1, MaxSize);
        string projector = fields.String("mm_projector_type", "linear")!;
        int layers = ProjectorLayers(fields, projector);
        int? mmHidden = fields.OptionalInt("mm_hidden_size", 1, MaxSize);
        if (layers == 0 && mmHidden is int given && given != hidden)
        {
            throw fields.Wrong("mm_hidden_size", Text(given), $"hidden_size, which is {Text(hidden)}, because mm_projector_type is \"identity\"");
        }
        return new LlavaConfig
        {
            HiddenSize = hidden,
            IntermediateSize = fields.Int("intermediate_size", 11008, 1, MaxSize),
            NumHiddenLayers = fields.Int("num_hidden_layers", 32, 1, MaxLayers),
            NumAttentionHeads = heads,
            NumKeyValueHeads = keyValueHeads,
            HeadDim = headDim,
            VocabSize = vocabulary,
            MaxPositionEmbeddings = fields.Int("max_position_embeddings", 2048, 1, MaxSize),
            RmsNormEps = fields.Number("rms_norm_eps", 1e-6, 0, 1),
            RopeTheta = fields.Number("rope_theta", 10000, 1, 1e9),
            RopeScalingFactor = RopeFactor(fields),
            TieWordEmbeddings = fields.Bool("tie_word_embeddings", false),
            BosTokenId = fields.Int("bos_token_id", 1, 0, vocabulary - 1),
            EosTokenIds = fields.Ints("eos_token_id", 0, vocabulary - 1, 64, allowSingle: true) ?? [Math.Min(2, vocabulary - 1)],
            // transformers writes -1 for "none" in some LLaMA checkpoints.
            PadTokenId = fields.OptionalInt("pad_token_id", -1, vocabulary - 1) is int pad and >= 0 ? pad : null,
            MmProjectorType = projector,
            MmProjectorLayers = layers,
            MmHiddenSize = mmHidden,
            MmVisionTower = fields.String("mm_vision_tower"),
            MmVisionSelectLayer = fields.Int("mm_vision_select_layer", -1, -MaxLayers, MaxLayers),
            MmVisionSelectFeature = fields.String("mm_vision_select_feature", "patch")!,
            MmUseImStartEnd = fields.Bool("mm_use_im_start_end", false),
            MmUseImPatchToken = fields.Bool("mm_use_im_patch_token", true),
            MmPatchMergeType = fields.String("mm_patch_merge_type", "flat")!,
            ImageAspectRatio = fields.String("image_aspect_ratio"),
            ImageGridPinpoints = Pinpoints(fields),
            TokenizerModelMaxLength = MaxLength(fields, "tokenizer_model_max_length"),
            TokenizerPaddingSide = PaddingSide(fields, "tokenizer_padding_side"),
            Quantization = Quantized(fields),
            TorchDType = Precision(fields, fields.Has("torch_dtype") ? "torch_dtype" : "dtype"),
        };
    }

    private static int HeadSize(JsonFields fields, int hidden, int heads)
    {
        int size;
        if (fields.OptionalInt("head_dim", 1, MaxSize) is int given)
        {
            size = given;
        }
        else
        {
            if (hidden % heads != 0)
            {
                throw fields.Wrong("num_attention_heads", Text(heads), $"a divisor of hidden_size, which is {Text(hidden)}");
            }
            size = hidden / heads;
        }
        // Rotary embedding rotates element i with element i + size/2.
        if (size % 2 != 0) throw fields.Wrong("head_dim", Text(size), "an even number");
        return size;
    }

    private static int ProjectorLayers(JsonFields fields, string type)
    {
        if (type == "identity") return 0;
        if (type == "linear") return 1;
        if (type.StartsWith("mlp", StringComparison.Ordinal) && type.EndsWith("x_gelu", StringComparison.Ordinal) && type.Length > 9
            && int.TryParse(type.AsSpan(3, type.Length - 9), NumberStyles.None, CultureInfo.InvariantCulture, out int layers)
            && layers is >= 1 and <= 64)
        {
            return layers;
        }
        throw fields.Wrong("mm_projector_type", $"\"{type}\"", "\"linear\", \"identity\" or \"mlpNx_gelu\" with N from 1 to 64");
    }

    private static double RopeFactor(JsonFields fields)
    {
        if (fields.Object("rope_scaling") is not JsonFields scaling) return 1;
        string? type = scaling.String("type") ?? scaling.String("rope_type");
        if (type != "linear") throw fields.Wrong("rope_scaling", type is null ? "without a type" : $"of type \"{type}\"", "null or {\"type\": \"linear\", \"factor\": f}");
        if (!scaling.Has("factor")) throw fields.Wrong("rope_scaling", "without a factor", "null or {\"type\": \"linear\", \"factor\": f}");
        return scaling.Number("factor", 1, 1, 1e4);
    }

    private static ImmutableArray<PixelSize> Pinpoints(JsonFields fields)
    {
        const string Name = "image_grid_pinpoints";
        if (!fields.TryGet(Name, out JsonElement value)) return [];
        if (value.ValueKind != JsonValueKind.String) return PixelSizes(fields, value);
        // The original evaluates the string as a Python literal; lists and tuples of integers become JSON by changing brackets.
        string json = value.GetString()!.Replace('(', '[').Replace(')', ']');
        try
        {
            using JsonDocument document = JsonDocument.Parse(json, new JsonDocumentOptions { AllowTrailingCommas = true, MaxDepth = 4 });
            return PixelSizes(fields, document.RootElement);
        }
        catch (JsonException)
        {
            throw fields.Wrong(Name, value, "a list of [width, height] pairs");
        }
    }

    private static ImmutableArray<PixelSize> PixelSizes(JsonFields fields, JsonElement list)
    {
        const string Name = "image_grid_pinpoints";
        if (list.ValueKind != JsonValueKind.Array || list.GetArrayLength() > 1000) throw fields.Wrong(Name, list, "a list of at most 1000 [width, height] pairs");
        ImmutableArray<PixelSize>.Builder sizes = ImmutableArray.CreateBuilder<PixelSize>();
        foreach (JsonElement pair in list.EnumerateArray())
        {
            if (pair.ValueKind == JsonValueKind.Array && pair.GetArrayLength() == 2
                && pair[0].ValueKind == JsonValueKind.Number && pair[0].TryGetInt32(out int width) && width is >= 1 and <= MaxSize
                && pair[1].ValueKind == JsonValueKind.Number && pair[1].TryGetInt32(out int height) && height is >= 1 and <= MaxSize)
            {
                sizes.Add(new PixelSize(width, height));
                continue;
            }
            throw fields.Wrong(Name, pair, "[width, height] pairs of positive integers");
        }
        return sizes.ToImmutable();
    }

    /// <summary>A token limit; transformers writes 10^30 for "none".</summary>
    internal static int? MaxLength(JsonFields fields, string name)
    {
        double length = fields.Number(name, double.MaxValue, 1, double.MaxValue);
        return length > MaxSize ? null : (int)length;
    }

    internal static string PaddingSide(JsonFields fields, string name)
    {
        string side = fields.String(name, "right")!;
        return side is "right" or "left" ? side : throw fields.Wrong(name, $"\"{side}\"", "\"right\" or \"left\"");
    }

    private static QuantOptions? Quantized(JsonFields fields)
    {
        if (fields.Object(QuantizationField) is not JsonFields quantization) return null;
        int version = quantization.Int("version", 1, 1, int.MaxValue);
        if (version != 1) throw quantization.Wrong("version", Text(version), "1, the only one this engine knows");
        QuantFormat format = QuantFormats.TryParse(quantization.String("format"))
            ?? throw quantization.Wrong("format", $"\"{quantization.String("format")}\"", $"one of {QuantFormats.AllNames}");
        return new QuantOptions(format, quantization.Bool("vision", false), quantization.Bool("lm_head", false));
    }

    private static DType? Precision(JsonFields fields, string name) => fields.String(name) switch
    {
        null => null,
        "float32" or "torch.float32" => DType.Float32,
        "float16" or "torch.float16" => DType.Float16,
        "bfloat16" or "torch.bfloat16" => DType.BFloat16,
        string other => throw fields.Wrong(name, $"\"{other}\"", "\"float32\", \"float16\" or \"bfloat16\""),
    };

    internal static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);
}
