using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;
using TorchSharp;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;
using Tensor = TorchSharp.torch.Tensor;

namespace ConvLLaVA.Peers;

/// <summary>The same language model in libtorch, eager: linear layers, fused attention, keys and values in a cache that is allocated once.</summary>
internal sealed class TorchLlama : ILanguageModel
{
    private const double Epsilon = 1e-5;
    private readonly Dictionary<string, Tensor> _weights = [];
    private readonly Tensor[] _keys;
    private readonly Tensor[] _values;
    private readonly Tensor _cos;
    private readonly Tensor _sin;
    private readonly SyntheticPreset _sizes;
    private long _context;
    private float[] _logits = [];

    public TorchLlama(string model, DType dtype, int maxTokens)
    {
        using var weights = new PeerWeights(model, dtype);
        _sizes = weights.Sizes;
        foreach (string name in Names(_sizes.Layers)) _weights.Add(name, weights.Use(name, TorchTensors.Copy));
        ScalarType type = _weights["lm_head.weight"].dtype;
        _keys = [.. Enumerable.Range(0, _sizes.Layers).Select(_ => zeros([1, _sizes.KeyValueHeads, maxTokens, _sizes.HeadDim], type))];
        _values = [.. Enumerable.Range(0, _sizes.Layers).Select(_ => zeros([1, _sizes.KeyValueHeads, maxTokens, _sizes.HeadDim], type))];
        using var scope = NewDisposeScope();
        Tensor frequencies = pow(10000.0, -arange(0, _sizes.HeadDim, 2, ScalarType.Float32) / _sizes.HeadDim);
        Tensor angles = outer(arange(maxTokens, ScalarType.Float32), frequencies);
        Tensor both = cat([angles, angles], -1);
        _cos = both.cos().to(type).MoveToOuterDisposeScope();
        _sin = both.sin().to(type).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public ReadOnlySpan<float> Logits => _logits;

    /// <inheritdoc/>
    public void Reset() => _context = 0;

    /// <inheritdoc/>
    public void Feed(int[] tokens)
    {
        using var inference = inference_mode();
        using var scope = NewDisposeScope();
        long count = tokens.Length, end = _context + count;
        Tensor ids = tensor([.. tokens.Select(token => (long)token)]);
        Tensor hidden = _weights["model.embed_tokens.weight"].index_select(0, ids); // [tokens, hidden_size]
        Tensor cos = _cos.narrow(0, _context, count), sin = _sin.narrow(0, _context, count); // [tokens, head_dim]
        for (int i = 0; i < _sizes.Layers; i++)
        {
            using var layerScope = NewDisposeScope();
            string layer = $"model.layers.{i}.";
            Tensor normed = Norm(hidden, layer + "input_layernorm.weight");
            Tensor query = Rotate(Heads(Linear(normed, layer + "self_attn.q_proj.weight"), count), cos, sin); // [1, heads, tokens, head_dim]
            Tensor key = Rotate(Heads(Linear(normed, layer + "self_attn.k_proj.weight"), count), cos, sin);
            _keys[i].narrow(2, _context, count).copy_(key);
            _values[i].narrow(2, _context, count).copy_(Heads(Linear(normed, layer + "self_attn.v_proj.weight"), count));
            Tensor attended = F.scaled_dot_product_attention(query, PerQuery(_keys[i].narrow(2, 0, end)), PerQuery(_values[i].narrow(2, 0, end)), is_casual: count > 1);
            hidden = hidden + Linear(attended.transpose(1, 2).reshape(count, -1), layer + "self_attn.o_proj.weight");
            normed = Norm(hidden, layer + "post_attention_layernorm.weight");
            Tensor gated = F.silu(Linear(normed, layer + "mlp.gate_proj.weight")) * Linear(normed, layer + "mlp.up_proj.weight");
            hidden = (hidden + Linear(gated, layer + "mlp.down_proj.weight")).MoveToOuterDisposeScope();
        }
        _logits = TorchTensors.Read(Linear(Norm(hidden.narrow(0, count - 1, 1), "model.norm.weight"), "lm_head.weight"));
        _context = end;
    }

    private static IEnumerable<string> Names(int layers) =>
    [
        "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
        .. Enumerable.Range(0, layers).SelectMany(i => ((string[])["input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]).Select(part => $"model.layers.{i}.{part}.weight")),
    ];

    private Tensor Linear(Tensor input, string weight) => F.linear(input, _weights[weight]);

    private Tensor Norm(Tensor input, string weight)
    {
        Tensor wide = input.to(ScalarType.Float32);
        return (wide * rsqrt(wide.square().mean([-1], keepdim: true) + Epsilon)).to(input.dtype) * _weights[weight];
    }

    /// <summary>A head for each of the queries', where several share one.</summary>
    private Tensor PerQuery(Tensor heads) => _sizes.Heads == _sizes.KeyValueHeads ? heads : heads.repeat_interleave(_sizes.Heads / _sizes.KeyValueHeads, 1);

    private Tensor Heads(Tensor projected, long count) => projected.view(1, count, -1, _sizes.HeadDim).transpose(1, 2);

    private static Tensor Rotate(Tensor heads, Tensor cos, Tensor sin)
    {
        Tensor[] halves = heads.chunk(2, -1);
        return (heads * cos) + (cat([-halves[1], halves[0]], -1) * sin);
    }

    public void Dispose()
    {
        foreach (Tensor tensor in _weights.Values.Concat(_keys).Concat(_values)) tensor.Dispose();
        _cos.Dispose();
        _sin.Dispose();
    }
}
