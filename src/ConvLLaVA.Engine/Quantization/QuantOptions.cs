using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Quantization;

/// <summary>Which weights are quantised and how. Those of the decoder's layers and of the projector always are; embeddings, norms, biases,
/// layer scales and the tower's other convolutions never.</summary>
/// <param name="Format">Format.</param>
/// <param name="Vision">Also the pointwise layers of the vision tower.</param>
/// <param name="LmHead">Also the output head.</param>
public sealed record QuantOptions(QuantFormat Format, bool Vision = false, bool LmHead = false)
{
    /// <summary>Whether a tensor of the decoder or the projector is quantised, by its full name.</summary>
    public bool Covers(string name)
    {
        if (!name.EndsWith(".weight", StringComparison.Ordinal)) return false;
        if (name == "lm_head.weight") return LmHead;
        return name.StartsWith("model.mm_projector.", StringComparison.Ordinal)
            || (name.StartsWith("model.layers.", StringComparison.Ordinal) && name.EndsWith("_proj.weight", StringComparison.Ordinal));
    }

    /// <summary>Whether a tensor of the vision tower is quantised, by its name without prefix.</summary>
    public bool CoversVision(string name) => Vision && (name.EndsWith(".pwconv1.weight", StringComparison.Ordinal) || name.EndsWith(".pwconv2.weight", StringComparison.Ordinal));
}
