using System.CommandLine;
using System.Globalization;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava inspect</c>: what a checkpoint holds, its sizes and the memory it will need.</summary>
internal static class InspectCommand
{
    public static Command Create()
    {
        var command = new Command("inspect", "Say what a checkpoint holds and what memory it will need.");
        var folder = new Argument<string>("DIR") { Description = "Checkpoint folder." };
        var tower = new Option<string?>("--vision-tower") { Description = "Folder of the vision tower, ahead of where the checkpoint says.", HelpName = "DIR" };
        command.Add(folder);
        command.Add(tower);
        command.SetAction(parsed =>
        {
            Inspection found = Inspection.Of(parsed.GetRequiredValue(folder), new LoadOptions { VisionTower = parsed.GetValue(tower) });
            foreach ((string name, string value) in Lines(found)) Console.Out.WriteLine($"{name,-18}{value}");
            return Program.Done;
        });
        return command;
    }

    private static IEnumerable<(string Name, string Value)> Lines(Inspection found)
    {
        LlavaConfig config = found.Config;
        CheckpointSummary summary = found.Summary;
        yield return ("vision tower", $"ConvNeXt, {found.Vision.NumStages} stages, depths {string.Join('/', found.Vision.Depths)}, widths {string.Join('/', found.Vision.HiddenSizes)}");
        yield return ("", $"from {found.VisionSource}");
        yield return ("image", $"{found.ImageWidth}x{found.ImageHeight} pixels, {found.ImageTokens} tokens, aspect ratio: {config.ImageAspectRatio ?? "centre crop"}");
        yield return ("projector", config.MmProjectorType);
        yield return ("language model", $"{config.NumHiddenLayers} layers, hidden {config.HiddenSize}, intermediate {config.IntermediateSize}, {config.NumAttentionHeads} heads ({config.NumKeyValueHeads} key/value) of {config.HeadDim}, vocabulary {config.VocabSize}");
        yield return ("context", $"{config.MaxPositionEmbeddings} positions, prompt length trained for: {(config.TokenizerModelMaxLength is { } length ? length.ToString(CultureInfo.InvariantCulture) : "not stated")}");
        yield return ("stored as", string.Join(", ", summary.DTypes.Select(dtype => dtype.Name())));
        if (config.Quantization is { } quantized)
            yield return ("quantised", $"{quantized.Format.Name()}: language model layers, projector{(quantized.Vision ? ", vision pointwise layers" : "")}{(quantized.LmHead ? ", output head" : "")}");
        yield return ("parameters", $"{Count(summary.Total.Parameters)} (vision {Count(summary.Vision.Parameters)}, projector {Count(summary.Projector.Parameters)}, language model {Count(summary.LanguageModel.Parameters)})");
        foreach (CheckpointFile file in summary.Files) yield return ("file", $"{file.Path}, {Size(file.Bytes)}");
        if (summary.Ignored.Length > 0) yield return ("ignored tensors", $"{summary.Ignored.Length}, such as {summary.Ignored[0]}");
        yield return ("memory", $"weights {Size(summary.Total.Bytes)} {(config.Quantization is null ? "(mapped)" : "(quantised ones repacked)")}, workspace {Size(found.WorkspaceBytes)}, KV cache {Size(found.KvCacheBytes)} ({Size(found.KvBytesPerToken)} a token)");
        yield return ("", $"together {Size(summary.Total.Bytes + found.WorkspaceBytes + found.KvCacheBytes)}; KV pages take real memory only once used");
        long least = found.Gpu.WeightBytes + found.Gpu.WorkspaceBytes;
        yield return ("memory on a GPU", $"in {found.Gpu.Type.Name()}: weights {Size(found.Gpu.WeightBytes)}, workspace {Size(found.Gpu.WorkspaceBytes)}, KV cache {Size(found.Gpu.KvBytesPerToken)} a token");
        yield return ("", $"together {Size(least + (found.Gpu.KvBytesPerToken * config.MaxPositionEmbeddings))} with one full context; the KV cache gets what is left beside {Size(least)}, unless --kv-memory or --kv-tokens limits it");
    }

    private static string Count(long value) => value.ToString("N0", CultureInfo.InvariantCulture);

    private static string Size(long bytes) => bytes switch
    {
        < 1 << 10 => $"{bytes} B",
        < 1 << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1024.0:F1} KiB"),
        < 1 << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1048576.0:F1} MiB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1073741824.0:F2} GiB"),
    };
}
