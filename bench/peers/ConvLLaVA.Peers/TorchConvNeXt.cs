using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;
using TorchSharp;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;
using Tensor = TorchSharp.torch.Tensor;

namespace ConvLLaVA.Peers;

/// <summary>The same vision encoder in libtorch, eager, as Hugging Face's module computes it.</summary>
internal sealed class TorchConvNeXt : IEncoder
{
    private const double Epsilon = 1e-6;
    private readonly Dictionary<string, Tensor> _weights = [];
    private readonly SyntheticPreset _sizes;
    private readonly Tensor _input;

    /// <param name="model">Whose weights.</param>
    /// <param name="dtype">Their type, which is also the activations'.</param>
    /// <param name="channelsLast">Memory layout of pictures and convolutions.</param>
    /// <param name="values">The normalised picture. [3, size, size]</param>
    public TorchConvNeXt(string model, DType dtype, bool channelsLast, float[] values)
    {
        using var weights = new PeerWeights(model, dtype);
        _sizes = weights.Sizes;
        foreach (string name in weights.VisionNames)
        {
            Tensor weight = weights.Use(TensorNames.VisionPrefix + name, TorchTensors.Copy);
            if (channelsLast && weight.dim() == 4)
            {
                using Tensor first = weight;
                weight = ChannelsLast(first);
            }
            _weights.Add(name, weight);
        }
        int size = (int)Math.Sqrt(values.Length / 3);
        using var scope = NewDisposeScope();
        Tensor input = tensor(values, [1, 3, size, size]).to(_weights["embeddings.patch_embeddings.weight"].dtype);
        _input = (channelsLast ? ChannelsLast(input) : input).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public float[] Features { get; private set; } = [];

    /// <inheritdoc/>
    public void Run()
    {
        using var inference = inference_mode();
        using var scope = NewDisposeScope();
        Tensor x = Norm2d(Conv(_input, "embeddings.patch_embeddings", 4), "embeddings.layernorm"); // [1, C, h, w]
        for (int s = 0; s < _sizes.Depths.Length; s++)
        {
            string stage = TensorNames.VisionStage(s);
            if (s > 0) x = Conv(Norm2d(x, stage + "downsampling_layer.0"), stage + "downsampling_layer.1", 2);
            for (int j = 0; j < _sizes.Depths[s]; j++)
            {
                using var blockScope = NewDisposeScope();
                x = Block(x, $"{stage}layers.{j}.").MoveToOuterDisposeScope();
            }
        }
        Features = TorchTensors.Read(x.permute(0, 2, 3, 1));
    }

    private Tensor Block(Tensor x, string name)
    {
        Tensor y = F.conv2d(x, _weights[name + "dwconv.weight"], _weights[name + "dwconv.bias"], padding: [3, 3], groups: x.shape[1]);
        y = Norm(y.permute(0, 2, 3, 1), name + "layernorm"); // [1, h, w, C]
        y = F.gelu(F.linear(y, _weights[name + "pwconv1.weight"], _weights[name + "pwconv1.bias"]));
        y = F.linear(y, _weights[name + "pwconv2.weight"], _weights[name + "pwconv2.bias"]) * _weights[name + "layer_scale_parameter"];
        return x + y.permute(0, 3, 1, 2);
    }

    /// <summary>The same tensor with its channels beside each other in memory, which libtorch recognises by the strides.</summary>
    private static Tensor ChannelsLast(Tensor tensor)
    {
        using Tensor rows = tensor.permute(0, 2, 3, 1);
        using Tensor copied = rows.contiguous();
        return copied.permute(0, 3, 1, 2);
    }

    private Tensor Conv(Tensor x, string name, long stride) => F.conv2d(x, _weights[name + ".weight"], _weights[name + ".bias"], strides: [stride, stride]);

    private Tensor Norm2d(Tensor x, string name) => Norm(x.permute(0, 2, 3, 1), name).permute(0, 3, 1, 2);

    private Tensor Norm(Tensor x, string name) => F.layer_norm(x, [x.shape[^1]], _weights[name + ".weight"], _weights[name + ".bias"], Epsilon);

    public void Dispose()
    {
        foreach (Tensor tensor in _weights.Values) tensor.Dispose();
        _input.Dispose();
    }
}
