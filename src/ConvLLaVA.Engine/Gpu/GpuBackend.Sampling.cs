using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

public sealed partial class GpuBackend
{
    /// <inheritdoc/>
    public unsafe void Sample(Tensor logits, PagedBatch batch, Workspace workspace)
    {
        SamplingBatch sampling = batch.Sampling;
        int rows = logits.Rows, vocabulary = logits.Columns;
        using Workspace.Scope scope = workspace.Open();
        (Tensor penalised, Tensor weights, Tensor results) = GpuScratch.Sampling(workspace, rows, vocabulary);
        if (workspace.IsPlanning) return;
        Require(logits.DType == DType.Float32 && rows == sampling.Rows, "Sample", logits, logits);
        if (rows == 0) return;
        if (sampling.MaxWanted > Math.Min(vocabulary, SamplingBatch.MostLikeliest))
            throw new ArgumentException($"Sample: {sampling.MaxWanted} likeliest of {vocabulary} tokens are wanted, at most {SamplingBatch.MostLikeliest} can be.", nameof(batch));
        _stream.Enter();
        SamplingArrays arrays = Step(batch).Sampling;
        nint from = logits.Data;
        if (sampling.MaxCounted > 0)
        {
            Kernels.Penalise(logits.Data, arrays, sampling.MaxCounted, penalised.Data, rows, vocabulary);
            from = penalised.Data;
        }
        Kernels.Sample(from, arrays, weights.Data, results.Data, rows, vocabulary);
        var layout = new SamplingResults(rows, sampling.MaxWanted, sampling.WantsLogProbs);
        if (sampling.WantsLogProbs) Kernels.TokenLogProbs(logits.Data, arrays, results.Data, layout, sampling.MaxWanted, rows, vocabulary);
        layout.CopyTo(sampling, new ReadOnlySpan<int>(_transfer.Receive(results.Data, layout.Words * sizeof(int)), layout.Words));
    }
}
