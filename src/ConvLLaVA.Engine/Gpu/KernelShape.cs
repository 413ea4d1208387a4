using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>What kernels are specialised for.</summary>
/// <param name="Type">Storage type.</param>
/// <param name="HeadDim">Columns of one attention head.</param>
/// <param name="Heads">Heads of queries.</param>
/// <param name="KeyValueHeads">Heads of keys and values.</param>
/// <param name="BlockSize">Tokens a KV page holds.</param>
/// <param name="MaxDecodeRows">Most sequences that decode together.</param>
/// <param name="Deterministic">Whether matrix products of the language model avoid cuBLASLt.</param>
/// <param name="Architecture">Architecture of the device, e.g. 90.</param>
internal sealed record KernelShape(DType Type, int HeadDim, int Heads, int KeyValueHeads, int BlockSize, int MaxDecodeRows, bool Deterministic, int Architecture)
{
    /// <summary>Rows of a tile of the prefill attention kernel on tensor cores.</summary>
    public const int TensorQueryTile = 64;

    /// <summary>Most rows that a GEMV kernel takes.</summary>
    public const int MaxGemvRows = 8;

    /// <summary>Tokens of a split of the decode attention kernel.</summary>
    public const int SplitTokens = 128;

    /// <summary>Elements of 16 bytes.</summary>
    public int Pack => 16 / Type.SizeInBytes();

    /// <summary>Whether attention over many rows runs on tensor cores.</summary>
    public bool TensorAttention => Type != DType.Float32 && HeadDim % 16 == 0;

    /// <summary>Keys of a tile of the prefill attention kernel on tensor cores: 64 where two blocks still fit a multiprocessor. Those of compute
    /// capability 7.5, 8.6 and 8.9 have 64 or 100 KiB of shared memory only.</summary>
    public int KeyTile => 2 * PrefillBytes(64) <= Multiprocessor.Of(Architecture).LargestBlockBytes ? 64 : 32;

    /// <summary>Dynamic shared memory of that kernel.</summary>
    public int PrefillBytes(int keyTile) => 4 * keyTile * (HeadDim + 8) * 2;

    /// <summary>Rows of a tile of the prefill attention kernel.</summary>
    public int QueryTile => TensorAttention ? TensorQueryTile : AnyQueryTile;

    /// <summary>Rows of a tile of the prefill attention kernel without tensor cores.</summary>
    public const int AnyQueryTile = 32;

    /// <summary>Query heads that one block of the decode attention kernel serves: those of one key/value head, at most four.</summary>
    public int Group
    {
        get
        {
            int perHead = Heads / KeyValueHeads;
            return perHead % 4 == 0 ? 4 : perHead % 2 == 0 ? 2 : 1;
        }
    }

    /// <summary>Row counts that GEMV kernels are compiled for, largest first.</summary>
    public IReadOnlyList<int> GemvRows => [.. new[] { 8, 4, 2, 1 }.Where(rows => Deterministic || rows == 1 || rows < 2 * MaxDecodeRows)];

    /// <summary>The kernel of attention over many rows.</summary>
    public KernelSpec PrefillAttention => TensorAttention
        ? OfHeads("attention_prefill.cu", $"QUERY_TILE={TensorQueryTile}", $"KEY_TILE={KeyTile}")
        : OfHeads("attention_prefill_any.cu", $"QUERY_TILE={AnyQueryTile}");

    /// <summary>The kernel of attention for decoding rows.</summary>
    public KernelSpec DecodeAttention => OfHeads("attention_decode.cu", $"GROUP={Group}", $"SPLIT_TOKENS={SplitTokens}");

    /// <summary>The kernel of rotary embedding and the write into pages.</summary>
    public KernelSpec RopeKv => OfHeads("rope_kv.cu");

    /// <summary>The kernel that chooses tokens; logits are float whatever is stored.</summary>
    public static KernelSpec Sample { get; } = KernelSpec.Of("sample.cu");

    /// <summary>The kernel of penalties.</summary>
    public static KernelSpec Penalise { get; } = KernelSpec.Of("penalise.cu");

    /// <summary>The kernel of log-probabilities.</summary>
    public static KernelSpec TokenLogProbs { get; } = KernelSpec.Of("token_logprobs.cu");

    /// <summary>A kernel that depends on the storage type only.</summary>
    public KernelSpec Plain(string file, params string[] constants) => KernelSpec.Of(file, [Storage, .. constants]);

    /// <summary>Widths of the strips of pixels that depthwise kernels are compiled for, widest first.</summary>
    public static IReadOnlyList<int> DepthwiseTiles { get; } = [6, 4, 2];

    /// <summary>The kernel of depthwise convolution and norm, by strips of <paramref name="tileWidth"/> pixels.</summary>
    public KernelSpec DepthwiseNorm(int tileWidth) => Plain("depthwise_norm.cu", $"TILE_WIDTH={tileWidth}");

    /// <summary>Most threads of a block of that kernel, and so most packs of channels.</summary>
    public const int DepthwiseThreads = 384;

    /// <summary>A matrix product of <paramref name="rows"/> rows.</summary>
    public KernelSpec Gemv(int rows, bool norm, int epilogue, int weights = KernelWeights.Stored)
        => Plain("gemv.cu", [$"ROWS={rows}", $"NORM={(norm ? 1 : 0)}", $"EPILOGUE={epilogue}", .. WeightsOf(weights)]);

    /// <summary>Norm, projection, rotary embedding and the write into pages for <paramref name="rows"/> rows.</summary>
    public KernelSpec GemvQkv(int rows, int weights = KernelWeights.Stored) => OfHeads("gemv_qkv.cu", [$"ROWS={rows}", .. WeightsOf(weights)]);

    /// <summary>Rows of a quantised matrix as the storage type.</summary>
    public KernelSpec Dequantise(int weights) => Plain("dequantise.cu", [.. WeightsOf(weights)]);

    /// <summary>Every specialisation that a model of this shape uses.</summary>
    public IReadOnlyList<KernelSpec> All()
    {
        var specs = new List<KernelSpec>
        {
            Plain("gather_patches.cu"), Plain("layer_norm.cu"), Plain("depthwise_norm_any.cu"), Plain("norm_gather.cu"), Plain("bias_activation.cu", "ACTIVATION=1"),
            Plain("embed_tokens.cu"), Plain("rms_norm.cu"), RopeKv, PrefillAttention, Plain("silu_multiply.cu"),
            Sample, Penalise, TokenLogProbs,
        };
        specs.AddRange(DepthwiseTiles.Select(DepthwiseNorm));
        if (!Deterministic) specs.Add(DecodeAttention);
        specs.AddRange(Products(KernelWeights.Stored).Select(product => product.Spec));
        return specs;
    }

    /// <summary>What a model with quantised weights uses besides.</summary>
    /// <param name="weights">The weights' form, of <see cref="KernelWeights"/>.</param>
    public IReadOnlyList<KernelSpec> Quantised(int weights) => [Dequantise(weights), .. Products(weights).Select(product => product.Spec)];

    /// <summary>The matrix products of few rows, of weights in one form: what is compiled is what is loaded.</summary>
    public IEnumerable<ProductKernel> Products(int weights) => GemvRows.SelectMany(rows => (ProductKernel[])
    [
        new(GemvQkv(rows, weights), rows, GemvEpilogue.RopeKv, true), new(Gemv(rows, false, GemvEpilogue.Add, weights), rows, GemvEpilogue.Add, false),
        new(Gemv(rows, true, GemvEpilogue.SwiGlu, weights), rows, GemvEpilogue.SwiGlu, true), new(Gemv(rows, false, GemvEpilogue.Logits, weights), rows, GemvEpilogue.Logits, false),
    ]);

    private static string[] WeightsOf(int weights) => weights == KernelWeights.Stored ? [] : [$"WEIGHTS={weights}"];

    private string Storage => Type switch
    {
        DType.Float16 => "STORAGE_F16=1",
        DType.BFloat16 => "STORAGE_BF16=1",
        DType.Float32 => "STORAGE_F32=1",
        _ => throw new ArgumentOutOfRangeException(nameof(Type), Type, null),
    };

    private KernelSpec OfHeads(string file, params string[] constants) => Plain(file, [$"HEAD_DIM={HeadDim}", $"PAGE_SIZE={BlockSize}", .. constants]);
}

/// <summary>A kernel that multiplies few rows.</summary>
/// <param name="Spec">Its specialisation.</param>
/// <param name="Rows">Rows that it takes.</param>
/// <param name="Epilogue">What it does with its sums, of <see cref="GemvEpilogue"/>.</param>
/// <param name="Norm">Whether it normalises its input, which is then in shared memory.</param>
internal readonly record struct ProductKernel(KernelSpec Spec, int Rows, int Epilogue, bool Norm);

/// <summary>What a GEMV kernel does with its sums.</summary>
internal static class GemvEpilogue
{
    /// <summary>Rotates queries and keys, and writes keys and values into their pages. No EPILOGUE of <c>gemv.cu</c>: <c>gemv_qkv.cu</c> does nothing else.</summary>
    public const int RopeKv = -1;

    /// <summary>Adds them onto y.</summary>
    public const int Add = 2;

    /// <summary>silu(gate) * up.</summary>
    public const int SwiGlu = 3;

    /// <summary>Stores them as float.</summary>
    public const int Logits = 4;
}
