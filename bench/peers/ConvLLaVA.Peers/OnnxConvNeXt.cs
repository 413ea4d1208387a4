using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;
using static ConvLLaVA.Peers.OnnxGraph;

namespace ConvLLaVA.Peers;

/// <summary>Writes the vision encoder as an ONNX file of fp32 weights, with channels first between the operators, as exporters do. ONNX Runtime
/// makes the same of a graph with channels last: both were tried, and gave the same bits in the same time.</summary>
internal sealed class OnnxConvNeXt
{
    private const float Epsilon = 1e-6f;
    private readonly OnnxGraph _graph;
    private readonly PeerWeights _weights;

    private OnnxConvNeXt(OnnxGraph graph, PeerWeights weights) => (_graph, _weights) = (graph, weights);

    /// <summary>Writes the file. It appears only when it is complete.</summary>
    /// <param name="path">The file.</param>
    /// <param name="model">Whose weights.</param>
    public static void Write(string path, string model)
    {
        using var weights = new PeerWeights(model, DType.Float32);
        using var graph = new OnnxGraph(path);
        new OnnxConvNeXt(graph, weights).Write();
    }

    private void Write()
    {
        SyntheticPreset sizes = _weights.Sizes;
        long side = sizes.ImageSize, grid = side / (4 << (sizes.Depths.Length - 1));
        string x = Down("pixels", "embeddings.patch_embeddings", 4); // [1, C, h, w]
        x = Planes(Norm(Rows(x), "embeddings.layernorm"));
        for (int s = 0; s < sizes.Depths.Length; s++)
        {
            string stage = TensorNames.VisionStage(s);
            if (s > 0) x = Down(Planes(Norm(Rows(x), stage + "downsampling_layer.0")), stage + "downsampling_layer.1", 2);
            for (int j = 0; j < sizes.Depths[s]; j++) x = Block(x, $"{stage}layers.{j}.", sizes.Widths[s]);
        }
        _graph.Save(("pixels", [1, 3, side, side]), (Rows(x), [1, grid, grid, sizes.Widths[^1]]));
    }

    private string Block(string x, string name, long width)
    {
        string y = Conv(x, name + "dwconv", Attribute("pads", [3, 3, 3, 3]), Attribute("group", width));
        y = Norm(Rows(y), name + "layernorm");
        y = _graph.Add("Gelu", [Linear(y, name + "pwconv1", null)]);
        y = Linear(y, name + "pwconv2", name + "layer_scale_parameter");
        return _graph.Add("Add", [x, Planes(y)]);
    }

    private string Down(string x, string name, long stride) => Conv(x, name, Attribute("strides", [stride, stride]));

    private string Conv(string x, string name, params OnnxMessage[] attributes) => _graph.Add("Conv", [x, Weight(name + ".weight"), Weight(name + ".bias")], attributes);

    /// <summary>Channels last. [1, C, h, w] to [1, h, w, C]</summary>
    private string Rows(string x) => _graph.Add("Transpose", [x], Attribute("perm", [0, 2, 3, 1]));

    /// <summary>Channels first. [1, h, w, C] to [1, C, h, w]</summary>
    private string Planes(string x) => _graph.Add("Transpose", [x], Attribute("perm", [0, 3, 1, 2]));

    private string Norm(string x, string name) => _graph.Add("LayerNormalization", [x, Weight(name + ".weight"), Weight(name + ".bias")], Attribute("axis", 3), Attribute("epsilon", Epsilon));

    /// <summary>A product with the bias added. What scales its result is multiplied into the weights, as an export is free to do.</summary>
    private string Linear(string x, string name, string? scaleName)
    {
        float[] weight = Values(name + ".weight"), bias = Values(name + ".bias"); // [out, in], [out]
        float[]? scale = scaleName is null ? null : Values(scaleName); // [out]
        int outputs = bias.Length, inputs = weight.Length / outputs;
        float[] turned = new float[weight.Length]; // [in, out]
        Parallel.For(0, inputs, i =>
        {
            for (int o = 0; o < outputs; o++) turned[(i * outputs) + o] = weight[(o * inputs) + i] * (scale?[o] ?? 1);
        });
        for (int o = 0; o < outputs; o++) bias[o] *= scale?[o] ?? 1;
        string product = _graph.Add("MatMul", [x, _graph.Weight(name + ".weight", [inputs, outputs], turned)]);
        return _graph.Add("Add", [product, _graph.Weight(name + ".bias", [outputs], bias)]);
    }

    private string Weight(string name) => _graph.Weight(name, _weights.Shape(TensorNames.VisionPrefix + name), Values(name));

    private float[] Values(string name) => _weights.Use(TensorNames.VisionPrefix + name, tensor => MemoryMarshal.Cast<byte, float>(tensor.Bytes).ToArray());
}
