using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Compares the tensors that are there with those that must be.</summary>
internal static class CheckpointValidator
{
    /// <summary>Picks the expected tensors out of <paramref name="found"/>.</summary>
    /// <param name="expected">What must be there.</param>
    /// <param name="found">What is there, by the same names.</param>
    /// <param name="source">Folder or file for the message about a missing tensor.</param>
    /// <param name="harmless">Says which other tensors may be there.</param>
    /// <param name="ignored">Receives those.</param>
    /// <param name="quantization">How matrices that are stored in parts are quantised.</param>
    /// <returns>The expected tensors by name.</returns>
    /// <exception cref="InvalidInputException">A tensor is missing, misshapen, of an integer type or not known.</exception>
    public static Dictionary<string, WeightTensor> Select(IEnumerable<ExpectedTensor> expected, IReadOnlyDictionary<string, WeightTensor> found,
        string source, Func<string, bool> harmless, List<WeightTensor> ignored, QuantOptions? quantization = null)
    {
        Dictionary<string, WeightTensor> selected = [];
        HashSet<string> parts = [];
        foreach (ExpectedTensor want in expected)
        {
            if (!found.TryGetValue(want.Name, out WeightTensor? have))
            {
                if (QuantizedParts.Compose(want, found, quantization, source, parts) is { } quantized)
                {
                    selected.Add(want.Name, quantized);
                    continue;
                }
                throw new InvalidInputException($"The tensor {want.Name} of shape {WeightTensor.Format(want.Shape)} is missing in {source}.");
            }
            if (!have.Shape.SequenceEqual(want.Shape))
            {
                throw new InvalidInputException(
                    $"The tensor {have.Name} in {have.Source} has the shape {WeightTensor.Format(have.Shape)}, expected {WeightTensor.Format(want.Shape)} from the configuration.");
            }
            if (!have.DType.IsFloating())
            {
                throw new InvalidInputException($"The tensor {have.Name} in {have.Source} has the type {have.DType.Name()}, expected float32, float16 or bfloat16.");
            }
            selected.Add(want.Name, have);
        }
        foreach ((string name, WeightTensor tensor) in found)
        {
            if (selected.ContainsKey(name) || parts.Contains(name)) continue;
            if (!harmless(name)) throw new InvalidInputException($"The tensor {tensor.Name} in {tensor.Source} has no place in the model that the configuration describes.");
            ignored.Add(tensor);
        }
        return selected;
    }

    /// <summary>Tensors that language-model files may have and the engine does not read: rotary frequencies (computed), the
    /// new-line embedding of an image layout that never worked with this tower, a second output head when it is tied, and copies of
    /// the vision tower.</summary>
    public static bool IsHarmlessInLanguageModel(string name, LlavaConfig config) =>
        name.EndsWith(".rotary_emb.inv_freq", StringComparison.Ordinal)
        || name == "model.image_newline"
        || (name == TensorNames.LmHead && config.TieWordEmbeddings)
        || name.StartsWith("model.vision_tower.", StringComparison.Ordinal);

    /// <summary>Tensors that a vision tower may have and the engine does not read: the final norm, which is never applied, and the
    /// block that <c>mm_vision_select_layer</c> -2 drops.</summary>
    public static bool IsHarmlessInVision(string name, VisionConfig config) =>
        name is "layernorm.weight" or "layernorm.bias"
        || (config.Depths[^1] < config.ConfiguredDepths[^1]
            && name.StartsWith(TensorNames.VisionBlock(config.NumStages - 1, config.ConfiguredDepths[^1] - 1), StringComparison.Ordinal));
}
