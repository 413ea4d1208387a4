using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace ConvLLaVA.Engine;

/// <summary>What running a checkpoint on a GPU takes of its memory. Pages get what is left, unless they are limited.</summary>
/// <param name="Type">Type of weights, activations and pages.</param>
/// <param name="WeightBytes">Weights.</param>
/// <param name="WorkspaceBytes">Activations of the largest step.</param>
/// <param name="KvBytesPerToken">Keys and values of one token.</param>
public sealed record GpuInspection(DType Type, long WeightBytes, long WorkspaceBytes, long KvBytesPerToken);

/// <summary>What a checkpoint holds and what memory running it takes, found without running it.</summary>
/// <param name="Config">The language model's configuration.</param>
/// <param name="Vision">The tower's configuration.</param>
/// <param name="VisionSource">Where the tower's weights come from.</param>
/// <param name="Summary">Files, parameters and bytes by part.</param>
/// <param name="ImageHeight">Rows of a picture as the tower sees it.</param>
/// <param name="ImageWidth">Columns of it.</param>
/// <param name="ImageTokens">Visual tokens of one such picture (of one tile with <c>anyres</c>).</param>
/// <param name="WorkspaceBytes">Activations of the largest step.</param>
/// <param name="KvBytesPerToken">Keys and values of one token.</param>
/// <param name="KvCacheBytes">The pages the engine would allocate by default.</param>
/// <param name="Gpu">The same on a GPU.</param>
public sealed record Inspection(LlavaConfig Config, VisionConfig Vision, string VisionSource, CheckpointSummary Summary,
    int ImageHeight, int ImageWidth, int ImageTokens, long WorkspaceBytes, long KvBytesPerToken, long KvCacheBytes, GpuInspection Gpu)
{
    /// <summary>Inspects the checkpoint in <paramref name="folder"/>: every file is opened and every tensor's name, shape and type is
    /// checked, but no weight is read.</summary>
    /// <exception cref="InvalidInputException">The folder is not a checkpoint this engine can run.</exception>
    public static Inspection Of(string folder, LoadOptions? options = null)
    {
        options ??= new LoadOptions();
        options.Validate();
        if (SyntheticName.Is(folder)) throw new InvalidInputException($"{folder} has no files to inspect; 'convllava synth' writes such a model.");
        ILogger logger = options.LoggerFactory?.CreateLogger("ConvLLaVA.Engine.Checkpoints") ?? NullLogger.Instance;
        using Checkpoint checkpoint = Checkpoint.Open(folder, new CheckpointOptions { VisionTower = options.VisionTower, Logger = logger });
        using var backend = new CpuBackend(options.Threads);
        var model = new LlavaModel(backend, checkpoint, name => Unread(checkpoint.Get(name)), name => Unread(checkpoint.GetVision(name)));
        (int height, int width) = PromptBuilder.TileSize(checkpoint.Preprocessor);
        long workspace = model.PlanWorkspace(height, width, options.MaxStepTokens, options.MaxSequences);
        LlavaConfig config = checkpoint.Config;
        long perToken = ModelRunner.KvBytesPerToken(config, DType.Float32);
        long kvCache = perToken * ModelRunner.KvTokens(config, options, DType.Float32, null);
        return new Inspection(config, checkpoint.Vision, checkpoint.VisionSource, checkpoint.Summary, height, width,
            model.TokensPerTile(height, width), workspace, perToken, kvCache, OnGpu(checkpoint, options, height, width));
    }

    /// <summary>A quantised matrix as floats without data: binding it would repack it, and planning wants its shape only.</summary>
    private static WeightTensor Unread(WeightTensor tensor)
        => tensor.Quantized is null ? tensor : new WeightTensor(tensor.Name, DType.BFloat16, tensor.Shape, 0, tensor.Source);

    private static GpuInspection OnGpu(Checkpoint checkpoint, LoadOptions options, int height, int width)
    {
        LlavaConfig config = checkpoint.Config;
        DType type = Backends.GpuType(options, checkpoint);
        int rows = Math.Min(options.MaxSequences, options.MaxStepTokens);
        using var planner = new GpuPlanner(new KernelShape(type, config.HeadDim, config.NumAttentionHeads, config.NumKeyValueHeads, ModelRunner.BlockSize, rows, options.Deterministic, 90));
        var model = new LlavaModel(planner, checkpoint, checkpoint.Get, checkpoint.GetVision);
        int padded = planner.PaddedDecodeRows(rows);
        long workspace = model.PlanWorkspace(height, width, Math.Max(options.MaxStepTokens, padded), Math.Max(options.MaxSequences, padded));
        return new GpuInspection(type, planner.WeightBytes, workspace, ModelRunner.KvBytesPerToken(config, type));
    }
}
