namespace ConvLLaVA.Engine.Tensors;

/// <summary>A matrix product's weights as a backend keeps them: y[t, o] = scale[o] * (sum_i x[t, i] * w[o, i] + bias[o]).
/// Several checkpoint tensors can stand below each other as one (query, key, value; gate, up).</summary>
public abstract class LinearWeight(int inFeatures, int outFeatures)
{
    /// <summary>Columns of the input.</summary>
    public int InFeatures { get; } = inFeatures;

    /// <summary>Columns of the output.</summary>
    public int OutFeatures { get; } = outFeatures;
}

/// <summary>LayerNorm (weight and bias) or RMSNorm (weight only) over the columns of a matrix.</summary>
public abstract class NormWeight(int features, float epsilon)
{
    /// <summary>Columns.</summary>
    public int Features { get; } = features;

    /// <summary>Added to the variance or mean square.</summary>
    public float Epsilon { get; } = epsilon;
}

/// <summary>A 7x7 depthwise filter with bias, channels-last.</summary>
public abstract class DepthwiseWeight(int channels)
{
    /// <summary>Channels.</summary>
    public int Channels { get; } = channels;
}

/// <summary>The token embedding table <c>[vocab_size, hidden_size]</c>.</summary>
public abstract class EmbeddingTable(int vocabularySize, int hiddenSize)
{
    /// <summary>Rows.</summary>
    public int VocabularySize { get; } = vocabularySize;

    /// <summary>Columns.</summary>
    public int HiddenSize { get; } = hiddenSize;
}

/// <summary>Rotary position embedding, "rotate half" pairing (i, i + head_dim / 2).</summary>
/// <param name="HeadDim">Columns of one head, even.</param>
/// <param name="Theta">Base of the frequencies; 10000 for Vicuna.</param>
/// <param name="ScalingFactor">Linear scaling: positions are divided by it; 1 for none.</param>
public sealed record RopeParameters(int HeadDim, double Theta, double ScalingFactor = 1);

/// <summary>The shape of a KV cache.</summary>
/// <param name="Layers">Decoder layers.</param>
/// <param name="Blocks">Pages per layer, page 0 included.</param>
/// <param name="BlockSize">Tokens a page holds.</param>
/// <param name="NumKeyValueHeads">Heads of keys and values.</param>
/// <param name="HeadDim">Columns of one head.</param>
public sealed record KvLayout(int Layers, int Blocks, int BlockSize, int NumKeyValueHeads, int HeadDim);

/// <summary>The pages themselves, keys and values of all layers, owned by a backend.</summary>
public abstract class KvStorage(KvLayout layout, long byteLength) : IDisposable
{
    /// <summary>Shape.</summary>
    public KvLayout Layout { get; } = layout;

    /// <summary>Bytes of all pages of all layers.</summary>
    public long ByteLength { get; } = byteLength;

    /// <inheritdoc/>
    public abstract void Dispose();
}
