namespace ConvLLaVA.Engine.Tensors;

/// <summary>What a device must be able to do: sub-layer operations, coarse enough that each backend fuses as it likes.
/// Two implementations of these operations are the whole porting surface. Calls of one backend come from one thread
/// at a time. Unless said otherwise outputs do not overlap inputs, and every result is independent of which other rows
/// or sequences share the call, bit for bit. An operation that is handed a planning workspace takes its scratch matrices
/// from it and returns without computing: that is how the size of the real one becomes known.</summary>
public interface IBackend : IDisposable
{
    /// <summary>Name for people: <c>cpu (AVX-512, 2 threads)</c>.</summary>
    string Name { get; }

    /// <summary>Type of activations, image features and KV pages: every matrix of the operations below unless a type is named.</summary>
    DType ActivationType { get; }

    /// <summary>Who holds how much of this backend's memory.</summary>
    MemoryLedger Memory { get; }

    /// <summary>Bytes that may still be allocated under the memory limit this backend was given, or null when it has none and only the
    /// operating system knows.</summary>
    long? AvailableBytes { get; }

    /// <summary>What broke the device for good, or null: every further call fails with it.</summary>
    ConvLlavaException? Fault { get; }

    /// <summary>Allocates <paramref name="bytes"/> of uninitialised memory and books them on <paramref name="owner"/>.</summary>
    MemoryBlock Allocate(long bytes, MemoryOwner owner);

    /// <summary>Rows of a matrix with <paramref name="columns"/> columns that are best worked on at a time when the result is
    /// consumed at once (the 4C expansion of a ConvNeXt block).</summary>
    int PreferredTileRows(int columns);

    /// <summary>Rows that a step of <paramref name="rows"/> decoding sequences is best padded to, so that few sizes occur.</summary>
    int PaddedDecodeRows(int rows);

    /// <summary>Makes room for the largest step that will come, so that steps allocate nothing.</summary>
    void ReserveSteps(StepLimits limits);

    // ---- load time: bind checkpoint tensors; the backend uses them in place where it can ----

    /// <summary>Binds <paramref name="rowBlocks"/>, each <c>[out_k, in]</c>, one below the other, with an optional bias <c>[out]</c>
    /// and an optional per-output factor <c>[out]</c> (ConvNeXt's layer scale) that also multiplies the bias. Blocks are all stored in floats
    /// or all quantised (<see cref="WeightTensor.Quantized"/>) in one format; bias and factor are never quantised. A backend may let
    /// go of a quantised block's bytes (<see cref="QuantizedTensor.Release"/>) once it has taken them.</summary>
    LinearWeight LoadLinear(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias = null, WeightTensor? scale = null);

    /// <summary>Binds a convolution <c>[out, in, k, k]</c> with stride k and no padding as a matrix over gathered rows, in the column
    /// order that <see cref="GatherPatches"/> and <see cref="NormGather"/> of this backend write.</summary>
    LinearWeight LoadPatchConvolution(WeightTensor weight, WeightTensor bias);

    /// <summary>Binds a LayerNorm, or an RMSNorm when <paramref name="bias"/> is null.</summary>
    NormWeight LoadNorm(WeightTensor weight, WeightTensor? bias, float epsilon);

    /// <summary>Binds a depthwise filter <c>[C, 1, 7, 7]</c> with bias <c>[C]</c>.</summary>
    DepthwiseWeight LoadDepthwise(WeightTensor filter, WeightTensor bias);

    /// <summary>Binds the embedding table <c>[vocab_size, hidden_size]</c>.</summary>
    EmbeddingTable LoadEmbedding(WeightTensor table);

    /// <summary>Brings everything that was bound onto the device. Called once, after the last binding; nothing is computed before.</summary>
    /// <param name="progress">Told what is being done and the share of the whole that is done, from 0 to 1, or null.</param>
    /// <param name="cancellation">Ends it early.</param>
    void CompleteLoading(Action<string, double>? progress, CancellationToken cancellation);

    /// <summary>Allocates KV pages.</summary>
    KvStorage CreateKvStorage(KvLayout layout);

    // ---- vision ----

    /// <summary>Normalises pictures and gathers their <paramref name="patch"/> x <paramref name="patch"/> patches into rows:
    /// output <c>[images * (H / patch) * (W / patch), 3 * patch * patch]</c>.</summary>
    void GatherPatches(ImageBatch images, int patch, Tensor output, Workspace workspace);

    /// <summary>LayerNorm of every row. <paramref name="output"/> may be <paramref name="input"/>.</summary>
    void LayerNorm(Tensor input, NormWeight norm, Tensor output);

    /// <summary>7x7 depthwise convolution (zero padding 3) with bias, then LayerNorm over channels. Both <c>[grid.Rows, C]</c>.</summary>
    void DepthwiseConvNorm(Tensor input, Grid grid, DepthwiseWeight filter, NormWeight norm, Tensor output);

    /// <summary>LayerNorm of every row, then each 2x2 cell of the grid gathered into one row:
    /// <c>[grid.Rows, C]</c> to <c>[grid.Downsampled(2).Rows, 4 * C]</c>; an odd last row or column is dropped.</summary>
    void NormGather(Tensor input, Grid grid, NormWeight norm, Tensor output);

    // ---- both ----

    /// <summary>output = activation(linear(input)). <c>[rows, in]</c> to <c>[rows, out]</c>.</summary>
    void Linear(Tensor input, LinearWeight weight, Activation activation, Tensor output);

    /// <summary>accumulator += linear(input), scale included. <c>[rows, in]</c> onto <c>[rows, out]</c>.</summary>
    void LinearResidual(Tensor input, LinearWeight weight, Tensor accumulator);

    /// <summary>Copies a matrix to another of the same shape.</summary>
    void Copy(Tensor source, Tensor destination);

    /// <summary>Copies a matrix to the host, widened to float.</summary>
    void Read(Tensor source, Span<float> destination);

    // ---- language model ----

    /// <summary>Runs one step: <paramref name="forward"/> calls the operations below with <paramref name="batch"/>. Whatever the step reads
    /// from the host lies in the batch, so a device can take it over at once and, for a repeatable step, replay what it recorded
    /// instead of calling <paramref name="forward"/>.</summary>
    /// <param name="batch">The step.</param>
    /// <param name="repeatable">The caller's promise that <paramref name="forward"/> makes the same calls with the same matrices for
    /// every repeatable step of as many tokens; only the batch's contents differ.</param>
    /// <param name="forward">The step's operations.</param>
    /// <param name="after">What follows them while the batch is still at hand, recorded in no case: choosing tokens.</param>
    void RunStep(PagedBatch batch, bool repeatable, Action forward, Action? after = null);

    /// <summary>Forgets recorded steps: the matrices or pages that they used are gone or others will be used.</summary>
    void ForgetSteps() { }

    /// <summary>Looks up one row a token; rows of negative ids are left as they are (image features go there).
    /// output <c>[tokens, hidden_size]</c>.</summary>
    void EmbedTokens(EmbeddingTable table, PagedBatch batch, Tensor output);

    /// <summary>RMSNorm, query/key/value projection, RoPE on queries and keys, keys and values into the pages of
    /// <paramref name="layer"/>. input <c>[tokens, hidden_size]</c>, query <c>[tokens, heads * head_dim]</c>.</summary>
    void NormQkvRope(Tensor input, NormWeight norm, LinearWeight qkv, RopeParameters rope, PagedBatch batch, KvStorage kv, int layer, Tensor query, Workspace workspace);

    /// <summary>Causal attention of every token over its sequence's pages, softmax scale 1/sqrt(head_dim), grouped-query when there
    /// are fewer key/value heads. Both <c>[tokens, heads * head_dim]</c>.</summary>
    void PagedAttention(Tensor query, PagedBatch batch, KvStorage kv, int layer, Tensor output, Workspace workspace);

    /// <summary>hidden += down(silu(gate(n)) * up(n)) with n = RMSNorm(hidden). hidden <c>[tokens, hidden_size]</c>;
    /// gateUp is gate <c>[intermediate_size, hidden_size]</c> above up.</summary>
    void NormGatedMlpResidual(Tensor hidden, NormWeight norm, LinearWeight gateUp, LinearWeight down, Workspace workspace);

    /// <summary>Final RMSNorm and lm_head of the batch's logit rows. hidden <c>[tokens, hidden_size]</c>,
    /// logits <c>[LogitCount, vocab_size]</c> Float32.</summary>
    void NormLogits(Tensor hidden, PagedBatch batch, NormWeight norm, LinearWeight head, Tensor logits, Workspace workspace);

    /// <summary>Chooses tokens as the batch's <see cref="SamplingBatch"/> says, and puts them and the log-probabilities that are wanted there:
    /// nothing else comes back to the host. logits <c>[rows, vocab_size]</c> Float32, a row for each of the batch's; they may be changed.</summary>
    void Sample(Tensor logits, PagedBatch batch, Workspace workspace);

    /// <summary>Copies one page of all layers (copy-on-write of a shared page).</summary>
    void CopyKvBlock(KvStorage kv, int source, int destination);
}

/// <summary>What follows a matrix product.</summary>
public enum Activation
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>Exact GELU: 0.5 x (1 + erf(x / sqrt(2))).</summary>
    Gelu,
}
