using System.Globalization;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Names of tensors as the published checkpoints spell them.</summary>
public static class TensorNames
{
    /// <summary>Prefix of the vision tower's tensors within the language-model files.</summary>
    public const string VisionPrefix = "model.vision_tower.vision_tower.";

    /// <summary>Prefix of the projector's tensors.</summary>
    public const string Projector = "model.mm_projector.";

    /// <summary>The token embedding table.</summary>
    public const string EmbedTokens = "model.embed_tokens.weight";

    /// <summary>The norm before the output head.</summary>
    public const string FinalNorm = "model.norm.weight";

    /// <summary>The output head.</summary>
    public const string LmHead = "lm_head.weight";

    /// <summary>Prefix of decoder layer <paramref name="index"/>, with its dot.</summary>
    public static string Layer(int index) => string.Create(CultureInfo.InvariantCulture, $"model.layers.{index}.");

    /// <summary>Prefix of vision stage <paramref name="stage"/> (unprefixed names), with its dot.</summary>
    public static string VisionStage(int stage) => string.Create(CultureInfo.InvariantCulture, $"encoder.stages.{stage}.");

    /// <summary>Prefix of block <paramref name="block"/> of a vision stage (unprefixed names), with its dot.</summary>
    public static string VisionBlock(int stage, int block) => string.Create(CultureInfo.InvariantCulture, $"encoder.stages.{stage}.layers.{block}.");
}
