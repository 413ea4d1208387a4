using System.Collections.Immutable;
using System.Globalization;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>A tensor that a checkpoint must have.</summary>
/// <param name="Name">Its name: within the language-model files, or without prefix for the vision tower.</param>
/// <param name="Shape">Its extents, outermost first; linear layers are [outputs, inputs].</param>
public sealed record ExpectedTensor(string Name, ImmutableArray<long> Shape);

/// <summary>The complete lists of tensors that the forward pass reads.</summary>
public static class ExpectedTensors
{
    /// <summary>The decoder: embedding, layers, final norm and, unless tied, the output head.</summary>
    public static IEnumerable<ExpectedTensor> LanguageModel(LlavaConfig config)
    {
        long hidden = config.HiddenSize, queries = (long)config.NumAttentionHeads * config.HeadDim, keys = (long)config.NumKeyValueHeads * config.HeadDim;
        yield return new(TensorNames.EmbedTokens, [config.VocabSize, hidden]);
        for (int i = 0; i < config.NumHiddenLayers; i++)
        {
            string layer = TensorNames.Layer(i);
            yield return new(layer + "self_attn.q_proj.weight", [queries, hidden]);
            yield return new(layer + "self_attn.k_proj.weight", [keys, hidden]);
            yield return new(layer + "self_attn.v_proj.weight", [keys, hidden]);
            yield return new(layer + "self_attn.o_proj.weight", [hidden, queries]);
            yield return new(layer + "mlp.gate_proj.weight", [config.IntermediateSize, hidden]);
            yield return new(layer + "mlp.up_proj.weight", [config.IntermediateSize, hidden]);
            yield return new(layer + "mlp.down_proj.weight", [hidden, config.IntermediateSize]);
            yield return new(layer + "input_layernorm.weight", [hidden]);
            yield return new(layer + "post_attention_layernorm.weight", [hidden]);
        }
        yield return new(TensorNames.FinalNorm, [hidden]);
        if (!config.TieWordEmbeddings) yield return new(TensorNames.LmHead, [config.VocabSize, hidden]);
    }

    /// <summary>The projector from <paramref name="visionSize"/> channels to the decoder's width.</summary>
    public static IEnumerable<ExpectedTensor> Projector(LlavaConfig config, int visionSize)
    {
        if (config.MmProjectorType == "linear")
        {
            yield return new(TensorNames.Projector + "weight", [config.HiddenSize, visionSize]);
            yield return new(TensorNames.Projector + "bias", [config.HiddenSize]);
            yield break;
        }
        for (int i = 0; i < config.MmProjectorLayers; i++)
        {
            // The activation between two layers takes the odd index.
            string layer = TensorNames.Projector + (2 * i).ToString(CultureInfo.InvariantCulture);
            yield return new(layer + ".weight", [config.HiddenSize, i == 0 ? visionSize : config.HiddenSize]);
            yield return new(layer + ".bias", [config.HiddenSize]);
        }
    }

    /// <summary>The vision tower, names without prefix, down to <see cref="VisionConfig.Depths"/>.</summary>
    public static IEnumerable<ExpectedTensor> Vision(VisionConfig config)
    {
        long first = config.HiddenSizes[0], patch = config.PatchSize;
        yield return new("embeddings.patch_embeddings.weight", [first, config.NumChannels, patch, patch]);
        yield return new("embeddings.patch_embeddings.bias", [first]);
        yield return new("embeddings.layernorm.weight", [first]);
        yield return new("embeddings.layernorm.bias", [first]);
        for (int stage = 0; stage < config.NumStages; stage++)
        {
            long channels = config.HiddenSizes[stage];
            if (stage > 0)
            {
                long before = config.HiddenSizes[stage - 1];
                string down = TensorNames.VisionStage(stage) + "downsampling_layer.";
                yield return new(down + "0.weight", [before]);
                yield return new(down + "0.bias", [before]);
                yield return new(down + "1.weight", [channels, before, 2, 2]);
                yield return new(down + "1.bias", [channels]);
            }
            for (int block = 0; block < config.Depths[stage]; block++)
            {
                foreach (ExpectedTensor tensor in VisionBlock(TensorNames.VisionBlock(stage, block), channels)) yield return tensor;
            }
        }
    }

    private static IEnumerable<ExpectedTensor> VisionBlock(string name, long channels)
    {
        yield return new(name + "dwconv.weight", [channels, 1, 7, 7]);
        yield return new(name + "dwconv.bias", [channels]);
        yield return new(name + "layernorm.weight", [channels]);
        yield return new(name + "layernorm.bias", [channels]);
        yield return new(name + "pwconv1.weight", [4 * channels, channels]);
        yield return new(name + "pwconv1.bias", [4 * channels]);
        yield return new(name + "pwconv2.weight", [channels, 4 * channels]);
        yield return new(name + "pwconv2.bias", [channels]);
        yield return new(name + "layer_scale_parameter", [channels]);
    }
}
