using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>Bytes and flops of every backend operation, from its arguments.</summary>
internal static class CostModel
{
    private const int NormFlops = 8; // an element: mean, variance, scale and shift

    public static OperationCost GatherPatches(ImageBatch images, Tensor output)
        => new("gather patches", ((long)images.Count * images.Height * images.Width * 3) + output.ByteLength, 0, output.Rows, output.Columns, output.Columns);

    public static OperationCost LayerNorm(Tensor input) => new("layer norm", 2 * input.ByteLength, NormFlops * Elements(input), input.Rows, input.Columns, input.Columns);

    public static OperationCost DepthwiseConvNorm(Tensor input, IBackend backend) => new("depthwise 7x7 + norm",
        (2 * input.ByteLength) + (49L * input.Columns * ElementBytes(backend)), (2 * 49 * Elements(input)) + (NormFlops * Elements(input)), input.Rows, input.Columns, input.Columns);

    public static OperationCost NormGather(Tensor input, Tensor output) => new("norm + 2x2 gather", input.ByteLength + output.ByteLength, NormFlops * Elements(input),
        input.Rows, input.Columns, output.Columns);

    public static OperationCost Linear(Tensor input, LinearWeight weight, Activation activation, Tensor output, IBackend backend)
        => new(activation == Activation.Gelu ? "linear + GELU" : "linear", input.ByteLength + output.ByteLength + Bytes(weight, backend), Product(input.Rows, weight),
            input.Rows, input.Columns, weight.OutFeatures)
        { Weights = [weight] };

    public static OperationCost LinearResidual(Tensor input, LinearWeight weight, Tensor accumulator, IBackend backend)
        => new("linear + residual", input.ByteLength + (2 * accumulator.ByteLength) + Bytes(weight, backend), Product(input.Rows, weight),
            input.Rows, input.Columns, weight.OutFeatures)
        { Weights = [weight] };

    public static OperationCost Copy(Tensor source) => new("copy", 2 * source.ByteLength, 0, source.Rows, source.Columns, source.Columns);

    public static OperationCost Read(Tensor source) => new("read back", source.ByteLength, 0, source.Rows, source.Columns, source.Columns);

    public static OperationCost EmbedTokens(EmbeddingTable table, Tensor output)
        => new("embed tokens", output.ByteLength + ((long)output.Rows * output.Columns * ElementBytes(table, output)), 0, output.Rows, output.Columns, output.Columns);

    public static OperationCost NormQkvRope(Tensor input, LinearWeight qkv, RopeParameters rope, KvStorage kv, Tensor query, IBackend backend)
    {
        long written = 2L * input.Rows * kv.Layout.NumKeyValueHeads * rope.HeadDim * ElementBytes(backend);
        return new("norm + QKV + RoPE", input.ByteLength + Bytes(qkv, backend) + query.ByteLength + written, Product(input.Rows, qkv) + (NormFlops * Elements(input)),
            input.Rows, input.Columns, qkv.OutFeatures)
        { Weights = [qkv] };
    }

    public static OperationCost PagedAttention(Tensor query, PagedBatch batch, KvStorage kv, IBackend backend)
    {
        long pairs = 0, contexts = 0;
        for (int s = 0; s < batch.SequenceCount && s < batch.ContextLengths.Length; s++) // a plan has no sequences
        {
            long tokens = batch.QueryStarts[s + 1] - batch.QueryStarts[s], context = batch.ContextLengths[s];
            contexts += context;
            pairs += (tokens * context) - (tokens * (tokens - 1) / 2); // causal: every later token sees one more
        }
        long pages = 2 * contexts * kv.Layout.NumKeyValueHeads * kv.Layout.HeadDim * ElementBytes(backend);
        return new(batch.IsDecode ? "attention (decode)" : "attention (prefill)", (2 * query.ByteLength) + pages, 4 * pairs * query.Columns,
            query.Rows, query.Columns, query.Columns);
    }

    public static OperationCost NormGatedMlpResidual(Tensor hidden, LinearWeight gateUp, LinearWeight down, IBackend backend) => new("norm + gated MLP",
        (2 * hidden.ByteLength) + Bytes(gateUp, backend) + Bytes(down, backend), Product(hidden.Rows, gateUp) + Product(hidden.Rows, down),
        hidden.Rows, hidden.Columns, gateUp.OutFeatures / 2)
    { Weights = [gateUp, down] };

    public static OperationCost NormLogits(Tensor hidden, PagedBatch batch, LinearWeight head, Tensor logits, IBackend backend) => new("norm + logits",
        ((long)batch.LogitCount * hidden.Columns * hidden.DType.SizeInBytes()) + Bytes(head, backend) + logits.ByteLength, Product(batch.LogitCount, head),
        batch.LogitCount, hidden.Columns, head.OutFeatures)
    { Weights = [head] };

    public static OperationCost Sample(Tensor logits, PagedBatch batch)
        => new("sample", logits.ByteLength * (batch.Sampling.WantsLogProbs ? 2 : 1), 0, logits.Rows, logits.Columns, 1);

    /// <summary>Bytes of a weight as the backend reads it: the CPU keeps it as stored, a device in its own type.</summary>
    public static long Bytes(LinearWeight weight, IBackend backend) => weight is CpuQuantLinear quantized
        ? quantized.ByteLength
        : weight is GpuLinear onDevice ? onDevice.ByteLength : (long)weight.InFeatures * weight.OutFeatures * (weight is CpuLinear stored ? stored.DType.SizeInBytes() : ElementBytes(backend));

    private static long ElementBytes(EmbeddingTable table, Tensor output) => table is CpuEmbedding stored ? stored.DType.SizeInBytes() : output.DType.SizeInBytes();

    private static long ElementBytes(IBackend backend) => backend.ActivationType.SizeInBytes();

    private static long Elements(Tensor tensor) => (long)tensor.Rows * tensor.Columns;

    private static long Product(long rows, LinearWeight weight) => 2 * rows * weight.InFeatures * weight.OutFeatures;
}
