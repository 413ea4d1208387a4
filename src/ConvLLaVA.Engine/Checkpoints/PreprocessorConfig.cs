using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary><c>preprocessor_config.json</c> of the vision tower: how pixels become the network's input. Defaults are those of
/// transformers' CLIPImageProcessor.</summary>
public sealed record PreprocessorConfig
{
    private const int MaxPixels = 16384;

    /// <summary>Resize so that the shorter side has this many pixels; null when <see cref="ResizeTo"/> is given instead.</summary>
    public int? ShortestEdge { get; init; } = 224;

    /// <summary>Resize to exactly this size, whatever the aspect ratio; null when <see cref="ShortestEdge"/> counts.</summary>
    public PixelSize? ResizeTo { get; init; }

    /// <summary><c>crop_size</c>: the centre crop, i.e. the size of the network's input.</summary>
    public PixelSize CropSize { get; init; } = new(224, 224);

    /// <summary><c>do_resize</c>; default true.</summary>
    public bool DoResize { get; init; } = true;

    /// <summary><c>do_center_crop</c>; default true.</summary>
    public bool DoCenterCrop { get; init; } = true;

    /// <summary><c>do_rescale</c>: multiply by <see cref="RescaleFactor"/>; default true.</summary>
    public bool DoRescale { get; init; } = true;

    /// <summary><c>do_normalize</c>: subtract the mean, divide by the deviation; default true.</summary>
    public bool DoNormalize { get; init; } = true;

    /// <summary><c>do_convert_rgb</c>; default true.</summary>
    public bool DoConvertRgb { get; init; } = true;

    /// <summary><c>rescale_factor</c>; default 1/255.</summary>
    public double RescaleFactor { get; init; } = 1.0 / 255.0;

    /// <summary><c>image_mean</c>, red, green, blue; default: OpenAI CLIP's.</summary>
    public ImmutableArray<double> ImageMean { get; init; } = [0.48145466, 0.4578275, 0.40821073];

    /// <summary><c>image_std</c>, red, green, blue; default: OpenAI CLIP's.</summary>
    public ImmutableArray<double> ImageStd { get; init; } = [0.26862954, 0.26130258, 0.27577711];

    /// <summary>Reads <paramref name="path"/>.</summary>
    /// <exception cref="InvalidInputException">The file cannot be read or asks for processing this engine lacks.</exception>
    public static PreprocessorConfig Load(string path) => JsonFields.Load(path, Read);

    /// <summary>Reads JSON text; <paramref name="source"/> names it in messages.</summary>
    /// <exception cref="InvalidInputException">The text asks for processing this engine lacks.</exception>
    public static PreprocessorConfig Parse(string json, string source) => JsonFields.Parse(Encoding.UTF8.GetBytes(json), source, Read);

    private static PreprocessorConfig Read(JsonFields fields)
    {
        string? type = fields.String("image_processor_type") ?? fields.String("feature_extractor_type");
        if (type is not (null or "CLIPImageProcessor" or "CLIPImageProcessorFast" or "CLIPFeatureExtractor"))
        {
            throw fields.Wrong("image_processor_type", $"\"{type}\"", "\"CLIPImageProcessor\"");
        }
        if (fields.TryGet("resample", out JsonElement resample)
            && !(resample.ValueKind == JsonValueKind.Number && resample.TryGetInt32(out int method) && method == 3))
        {
            throw fields.Wrong("resample", resample, "3 (bicubic)");
        }
        (int? edge, PixelSize? exact) = Size(fields);
        PreprocessorConfig defaults = new();
        return new PreprocessorConfig
        {
            ShortestEdge = edge,
            ResizeTo = exact,
            CropSize = Crop(fields) ?? defaults.CropSize,
            DoResize = fields.Bool("do_resize", true),
            DoCenterCrop = fields.Bool("do_center_crop", true),
            DoRescale = fields.Bool("do_rescale", true),
            DoNormalize = fields.Bool("do_normalize", true),
            DoConvertRgb = fields.Bool("do_convert_rgb", true),
            RescaleFactor = fields.Number("rescale_factor", 1.0 / 255.0, 1e-9, 1e3),
            ImageMean = fields.Numbers("image_mean", 3, -1e3, 1e3) ?? defaults.ImageMean,
            ImageStd = fields.Numbers("image_std", 3, 1e-6, 1e3) ?? defaults.ImageStd,
        };
    }

    private static (int? Edge, PixelSize? Exact) Size(JsonFields fields)
    {
        if (!fields.TryGet("size", out JsonElement size)) return (224, null);
        if (size.ValueKind == JsonValueKind.Number) return (fields.Int("size", 0, 1, MaxPixels), null);
        if (size.ValueKind == JsonValueKind.Object)
        {
            JsonFields inside = fields.Inside(size);
            if (inside.Has("shortest_edge")) return (inside.Int("shortest_edge", 0, 1, MaxPixels), null);
            if (inside.Has("height") && inside.Has("width")) return (null, Pair(inside));
        }
        throw fields.Wrong("size", size, Expected("{\"shortest_edge\": n}, {\"height\": h, \"width\": w} or an integer"));
    }

    private static PixelSize? Crop(JsonFields fields)
    {
        if (!fields.TryGet("crop_size", out JsonElement size)) return null;
        if (size.ValueKind == JsonValueKind.Number)
        {
            int side = fields.Int("crop_size", 0, 1, MaxPixels);
            return new PixelSize(side, side);
        }
        if (size.ValueKind == JsonValueKind.Object && fields.Inside(size) is var inside && inside.Has("height") && inside.Has("width"))
        {
            return Pair(inside);
        }
        throw fields.Wrong("crop_size", size, Expected("{\"height\": h, \"width\": w} or an integer"));
    }

    private static PixelSize Pair(JsonFields inside) => new(inside.Int("width", 0, 1, MaxPixels), inside.Int("height", 0, 1, MaxPixels));

    private static string Expected(string form) => string.Create(CultureInfo.InvariantCulture, $"{form} of 1 to {MaxPixels} pixels");
}
