using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Log messages of opening a checkpoint.</summary>
internal static partial class CheckpointLog
{
    [LoggerMessage(1, LogLevel.Debug, "Opened {Directory}: {Files} weight files, {Parameters} parameters; vision tower from {Vision}")]
    public static partial void Opened(ILogger logger, string directory, int files, long parameters, string vision);

    [LoggerMessage(2, LogLevel.Debug, "Both {Folder} and the language-model files hold vision weights: those of {Folder} are used")]
    public static partial void SeparateTowerWins(ILogger logger, string folder);

    [LoggerMessage(3, LogLevel.Debug, "mm_vision_select_layer is {Layer}, which the ConvNeXt tower ignores: the output of the last stage is used")]
    public static partial void SelectLayerIgnored(ILogger logger, int layer);

    [LoggerMessage(4, LogLevel.Debug, "Ignored {Count} tensors that the model does not use, {First} first")]
    public static partial void IgnoredTensors(ILogger logger, int count, string first);

    [LoggerMessage(5, LogLevel.Debug, "No config.json of the vision tower was found: its shape was read off the tensors")]
    public static partial void VisionShapeInferred(ILogger logger);
}
