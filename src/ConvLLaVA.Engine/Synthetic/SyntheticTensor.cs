using System.Collections.Immutable;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Synthetic;

/// <summary>A tensor of a random checkpoint: its name without file prefix, its shape, and the range of its values.</summary>
/// <param name="Name">Name, for the vision tower without prefix.</param>
/// <param name="Shape">Extents, outermost first.</param>
/// <param name="Offset">Middle of the range.</param>
/// <param name="Spread">Half of the range.</param>
internal sealed record SyntheticTensor(string Name, ImmutableArray<long> Shape, double Offset, double Spread)
{
    /// <summary>Number of elements.</summary>
    public long ElementCount => Shape.Aggregate(1L, (product, extent) => product * extent);

    /// <summary>The tower's tensors by their names in its own files, the final norm that is never applied included.</summary>
    public static IEnumerable<SyntheticTensor> Vision(VisionConfig config) => ExpectedTensors.Vision(config)
        .Append(new("layernorm.weight", [config.OutputSize])).Append(new("layernorm.bias", [config.OutputSize]))
        .Select(tensor => Of(tensor, config.NumStages));

    /// <summary>Decoder and projector, in the order of the published shards around the tower's copy: what precedes it, what follows.</summary>
    public static (SyntheticTensor[] Before, SyntheticTensor[] After) Language(LlavaConfig config, VisionConfig vision)
    {
        ILookup<bool, SyntheticTensor> decoder = ExpectedTensors.LanguageModel(config).Select(tensor => Of(tensor, config.NumHiddenLayers)).ToLookup(tensor => tensor.Name == TensorNames.LmHead);
        IEnumerable<SyntheticTensor> projector = ExpectedTensors.Projector(config, vision.OutputSize).Select(tensor => Of(tensor, 1));
        return ([.. decoder[false]], [.. projector, .. decoder[true]]);
    }

    /// <summary>Ranges that keep the residual streams near unit size at any depth, and logits a few units wide, so that the best token
    /// usually leads clearly and nothing overflows in half precision.</summary>
    private static SyntheticTensor Of(ExpectedTensor tensor, int depth)
    {
        string name = tensor.Name;
        bool weight = name.EndsWith(".weight", StringComparison.Ordinal);
        if (name.EndsWith("layer_scale_parameter", StringComparison.Ordinal)) return Range(0.3, 0.2);
        if (weight && tensor.Shape.Length == 1) return Range(1, 0.1); // a norm
        if (!weight) return Range(0, 0.1); // a bias
        if (name == TensorNames.EmbedTokens) return Deviation(1);
        if (name.EndsWith("dwconv.weight", StringComparison.Ordinal)) return Deviation(1.0 / 7);

        double inputs = tensor.Shape.Skip(1).Aggregate(1.0, (product, extent) => product * extent);
        double gain = name switch
        {
            TensorNames.LmHead => 4,
            _ when name.EndsWith("o_proj.weight", StringComparison.Ordinal) || name.EndsWith("down_proj.weight", StringComparison.Ordinal) => 1 / Math.Sqrt(depth),
            _ => 1,
        };
        return Deviation(gain / Math.Sqrt(inputs));

        SyntheticTensor Range(double offset, double spread) => new(name, tensor.Shape, offset, spread);
        SyntheticTensor Deviation(double deviation) => Range(0, deviation * Math.Sqrt(3)); // of a uniform distribution
    }
}
