using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Models;

/// <summary>The language model: a LLaMA decoder over paged keys and values, read top to bottom as its forward pass. A call
/// runs one step over a mixed batch: pieces of prompts and single decode tokens of different sequences in one matrix.
/// Source: <c>LlamaForCausalLM</c>.</summary>
internal sealed class Llama
{
    private readonly EmbeddingTable _embedding;
    private readonly Layer[] _layers;
    private readonly NormWeight _norm;
    private readonly LinearWeight _head;
    private readonly RopeParameters _rope;
    private readonly int _queryWidth;

    /// <summary>Binds the weights.</summary>
    /// <param name="backend">Where they will be used.</param>
    /// <param name="layers"><c>num_hidden_layers</c>.</param>
    /// <param name="heads"><c>num_attention_heads</c>.</param>
    /// <param name="rope">Head size and frequencies.</param>
    /// <param name="epsilon"><c>rms_norm_eps</c>.</param>
    /// <param name="weights">Looks a tensor up by its full name; tied embeddings answer for <c>lm_head.weight</c>.</param>
    /// <param name="progress">Called after each layer with the number of layers bound.</param>
    public Llama(IBackend backend, int layers, int heads, RopeParameters rope, float epsilon, Func<string, WeightTensor> weights, Action<int>? progress = null)
    {
        _rope = rope;
        _queryWidth = heads * rope.HeadDim;
        _embedding = backend.LoadEmbedding(weights("model.embed_tokens.weight"));
        _layers = new Layer[layers];
        for (int i = 0; i < layers; i++)
        {
            string layer = $"model.layers.{i}";
            string attention = $"{layer}.self_attn";
            _layers[i] = new Layer(
                backend.LoadNorm(weights($"{layer}.input_layernorm.weight"), null, epsilon),
                backend.LoadLinear([weights($"{attention}.q_proj.weight"), weights($"{attention}.k_proj.weight"), weights($"{attention}.v_proj.weight")]),
                backend.LoadLinear([weights($"{attention}.o_proj.weight")]),
                backend.LoadNorm(weights($"{layer}.post_attention_layernorm.weight"), null, epsilon),
                backend.LoadLinear([weights($"{layer}.mlp.gate_proj.weight"), weights($"{layer}.mlp.up_proj.weight")]),
                backend.LoadLinear([weights($"{layer}.mlp.down_proj.weight")]));
            progress?.Invoke(i + 1);
        }
        _norm = backend.LoadNorm(weights("model.norm.weight"), null, epsilon);
        _head = backend.LoadLinear([weights("lm_head.weight")]);
    }

    /// <summary>Columns of the hidden state.</summary>
    public int HiddenSize => _embedding.HiddenSize;

    /// <summary>Columns of the logits.</summary>
    public int VocabularySize => _head.OutFeatures;

    /// <summary>Embeds tokens; rows of negative ids stay as they are, for image features. hidden <c>[tokens, hidden_size]</c>.</summary>
    public void Embed(IBackend backend, PagedBatch batch, Tensor hidden) => backend.EmbedTokens(_embedding, batch, hidden);

    /// <summary>Runs all decoder layers in place and writes keys and values into the pages. hidden <c>[tokens, hidden_size]</c>.
    /// <paramref name="tap"/> is shown the hidden state after each layer.</summary>
    public void Forward(IBackend backend, Tensor hidden, PagedBatch batch, KvStorage kv, Workspace workspace, Action<Tensor>? tap = null)
    {
        for (int i = 0; i < _layers.Length; i++)
        {
            Layer layer = _layers[i];
            using (workspace.Open())
            {
                Tensor query = workspace.Take(hidden.Rows, _queryWidth); // [tokens, heads * head_dim]
                Tensor attended = workspace.Take(hidden.Rows, _queryWidth);
                backend.NormQkvRope(hidden, layer.InputNorm, layer.QueryKeyValue, _rope, batch, kv, i, query, workspace);
                backend.PagedAttention(query, batch, kv, i, attended, workspace);
                backend.LinearResidual(attended, layer.AttentionOutput, hidden);
            }
            backend.NormGatedMlpResidual(hidden, layer.PostAttentionNorm, layer.GateUp, layer.Down, workspace);
            tap?.Invoke(hidden);
        }
    }

    /// <summary>Logits of the batch's logit rows. hidden <c>[tokens, hidden_size]</c>, logits <c>[LogitCount, vocab_size]</c>.</summary>
    public void Logits(IBackend backend, Tensor hidden, PagedBatch batch, Tensor logits, Workspace workspace)
        => backend.NormLogits(hidden, batch, _norm, _head, logits, workspace);

    private sealed record Layer(NormWeight InputNorm, LinearWeight QueryKeyValue, LinearWeight AttentionOutput,
        NormWeight PostAttentionNorm, LinearWeight GateUp, LinearWeight Down);
}
