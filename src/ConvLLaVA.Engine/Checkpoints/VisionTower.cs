using System.Collections.Immutable;
using System.Globalization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Finds the folders that can hold the vision tower and works out its shape when no file states it.</summary>
internal static class VisionTower
{
    /// <summary>The places to look in, in order: the caller's folder alone when given; else what <c>mm_vision_tower</c> names as an
    /// absolute path, relative to the checkpoint, or as a folder beside the checkpoint; else <c>vision_tower/</c> inside it.</summary>
    /// <exception cref="InvalidInputException">The caller's folder does not exist.</exception>
    public static List<string> Folders(string checkpoint, string? option, string? configured)
    {
        if (option is not null)
        {
            return Directory.Exists(option)
                ? [option]
                : throw new InvalidInputException($"The vision tower folder {option} does not exist, expected a folder with config.json, preprocessor_config.json and weights.");
        }
        List<string> folders = [];
        string full = Path.GetFullPath(checkpoint);
        if (!string.IsNullOrWhiteSpace(configured) && !configured.Contains('\0', StringComparison.Ordinal))
        {
            folders.Add(Path.IsPathRooted(configured) ? configured : Path.GetFullPath(Path.Combine(full, configured)));
            string last = configured.TrimEnd('/', '\\').Split('/', '\\')[^1];
            if (last is not ("" or "." or "..") && Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(full)) is string parent)
            {
                folders.Add(Path.Combine(parent, last));
            }
        }
        folders.Add(Path.Combine(full, "vision_tower"));
        // A name such as "." or the checkpoint's own would take the language model for the tower.
        string self = Path.TrimEndingDirectorySeparator(full);
        return [.. folders.Where(folder => Path.TrimEndingDirectorySeparator(folder) != self).Distinct()];
    }

    /// <summary>Reads depths, widths and patch size off the shapes of the tensors.</summary>
    /// <exception cref="InvalidInputException">The tensors do not form a ConvNeXt tower.</exception>
    public static VisionConfig Infer(IReadOnlyDictionary<string, WeightTensor> tensors, string source)
    {
        const string Stem = "embeddings.patch_embeddings.weight";
        if (!tensors.TryGetValue(Stem, out WeightTensor? stem) || stem.Shape is not [_, 3, var patch and >= 1 and <= 64, var width] || width != patch)
        {
            throw new InvalidInputException($"The vision tensors in {source} do not show the tower's shape, expected {Stem} of shape [channels, 3, patch, patch] or a config.json of the tower.");
        }
        List<int> depths = [], sizes = [];
        for (int stage = 0; stage < 8; stage++)
        {
            int depth = 0;
            long channels = 0;
            while (tensors.TryGetValue(TensorNames.VisionBlock(stage, depth) + "layer_scale_parameter", out WeightTensor? scale))
            {
                channels = scale.Shape is [var extent and >= 1 and <= LlavaConfig.MaxSize] ? extent : 0;
                if (channels == 0 || ++depth > LlavaConfig.MaxLayers) throw Unclear(source, stage);
            }
            if (depth == 0) break;
            depths.Add(depth);
            sizes.Add((int)channels);
        }
        if (depths.Count == 0) throw Unclear(source, 0);
        ImmutableArray<int> all = [.. depths];
        return new VisionConfig { Depths = all, ConfiguredDepths = all, HiddenSizes = [.. sizes], PatchSize = (int)patch };
    }

    private static InvalidInputException Unclear(string source, int stage) => new(string.Create(CultureInfo.InvariantCulture,
        $"The vision tensors in {source} do not show the shape of stage {stage}, expected encoder.stages.{stage}.layers.0.layer_scale_parameter or a config.json of the tower."));
}
