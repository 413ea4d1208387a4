using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

public sealed partial class GpuBackend
{
    private PagedBatch? _uploaded; // the batch whose arrays lie on the device, during its step
    private bool _repeatable;
    private KvLayout? _replayedPages; // the pages that recorded steps write

    /// <inheritdoc/>
    public void RunStep(PagedBatch batch, bool repeatable, Action forward, Action? after = null)
    {
        _stream.Enter();
        _context.DrainReclaimed(); // what finalizers left; never during a recording
        repeatable &= _options.UseGraphs && _stream.Observer is null;
        int generation = _step.Generation + _ropes.Generation;
        try
        {
            if (repeatable && _replayedPages is { } pages) batch.Check("RunStep", batch.TokenCount, pages);
            _step.Upload(batch);
            _stream.BeginStep();
            if (generation != _step.Generation + _ropes.Generation)
            {
                _graphs.Clear(); // the arrays have moved
                generation = _step.Generation + _ropes.Generation;
            }
            _uploaded = batch;
            _repeatable = repeatable;
            if (repeatable) _graphs.Run(batch.TokenCount, forward);
            else forward();
            after?.Invoke();
        }
        finally
        {
            _uploaded = null;
            _repeatable = false;
            if (generation != _step.Generation + _ropes.Generation) _graphs.Clear();
        }
    }

    /// <inheritdoc/>
    public void ForgetSteps()
    {
        _stream.Enter();
        _graphs.Clear();
        _replayedPages = null;
    }

    /// <inheritdoc/>
    public void EmbedTokens(EmbeddingTable table, PagedBatch batch, Tensor output)
    {
        var embedding = (GpuEmbedding)table;
        Require(output.DType == _options.Type && output.Rows == batch.TokenCount && output.Columns == embedding.HiddenSize, "EmbedTokens", output, output);
        if (output.Data == 0 || output.Rows == 0) return;
        for (int t = 0; t < batch.TokenCount; t++)
        {
            if (batch.TokenIds[t] >= embedding.VocabularySize)
                throw new InvalidInputException($"Token id {batch.TokenIds[t]} is outside the vocabulary of {embedding.VocabularySize}.");
        }
        _stream.Enter();
        Kernels.EmbedTokens(Step(batch).TokenIds, embedding.Table, output.Data, output.Rows, output.Columns);
    }

    /// <inheritdoc/>
    public void NormQkvRope(Tensor input, NormWeight norm, LinearWeight qkv, RopeParameters rope, PagedBatch batch, KvStorage kv, int layer, Tensor query, Workspace workspace)
    {
        var weights = (GpuLinear)qkv;
        RequireRows("NormQkvRope", input, weights.InFeatures, query, _shape.Heads * _shape.HeadDim);
        if (rope.HeadDim != _shape.HeadDim || weights.OutFeatures != (_shape.Heads + (2 * _shape.KeyValueHeads)) * _shape.HeadDim || weights.HasBias)
            throw new ArgumentException($"NormQkvRope: a projection to {weights.OutFeatures} columns does not fit {_shape}.");
        _ropes.Expect(rope);
        using Workspace.Scope scope = workspace.Open();
        (Tensor normed, Tensor projected) = GpuScratch.Qkv(workspace, input, weights);
        if (query.Data == 0 || input.Rows == 0) return;
        var pages = (GpuKvStorage)kv;
        ArgumentOutOfRangeException.ThrowIfNegative(layer);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(layer, pages.Layout.Layers);
        if (layer == 0) batch.Check("NormQkvRope", input.Rows, pages.Layout);
        _stream.Enter();
        StepArrays step = Step(batch);
        nint angles = _ropes.Of(rope, step.TableStride * _shape.BlockSize);
        if (input.Rows <= Kernels.LargestGemv)
        {
            Kernels.GemvQkv(input.Data, (GpuNorm)norm, weights, angles, step, query.Data, pages.Keys(layer), pages.Values(layer), input.Rows);
            return;
        }
        Kernels.RmsNorm(input.Data, (GpuNorm)norm, normed.Data, input.Rows, input.Columns);
        Gemms.Run(normed.Data, weights.Weight, 0, projected.Data, input.Rows, weights.OutFeatures, weights.InFeatures, 1, GemmKind.Plain);
        Kernels.RopeKv(projected.Data, angles, step.Positions, step.Slots, query.Data, pages.Keys(layer), pages.Values(layer), input.Rows);
    }

    /// <inheritdoc/>
    public void PagedAttention(Tensor query, PagedBatch batch, KvStorage kv, int layer, Tensor output, Workspace workspace)
    {
        int width = _shape.Heads * _shape.HeadDim;
        RequireRows("PagedAttention", query, width, output, width);
        using Workspace.Scope scope = workspace.Open();
        if (workspace.IsPlanning)
        {
            GpuScratch.PlanAttention(workspace, _shape, batch);
            return;
        }
        if (query.Rows == 0) return;
        StepArrays step = Step(batch);
        // A recorded step must have room for any context; another one has what it needs.
        int splits = GpuScratch.Splits(_repeatable ? step.TableStride * _shape.BlockSize : step.LongestDecode);
        Tensor partial = GpuScratch.Partial(workspace, _shape, step.DecodeCount, splits);
        var pages = (GpuKvStorage)kv;
        ArgumentOutOfRangeException.ThrowIfNegative(layer);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(layer, pages.Layout.Layers);
        if (layer == 0) batch.Check("PagedAttention", query.Rows, pages.Layout);
        _stream.Enter();
        if (step.TileCount > 0) Kernels.PrefillAttention(query.Data, pages.Keys(layer), pages.Values(layer), output.Data, step);
        if (step.DecodeCount > 0) Kernels.DecodeAttention(query.Data, pages.Keys(layer), pages.Values(layer), output.Data, partial.Data, splits, step);
        if (_repeatable) _replayedPages = pages.Layout;
    }

    /// <inheritdoc/>
    public void NormGatedMlpResidual(Tensor hidden, NormWeight norm, LinearWeight gateUp, LinearWeight down, Workspace workspace)
    {
        var first = (GpuLinear)gateUp;
        var second = (GpuLinear)down;
        int inner = second.InFeatures;
        Require(hidden.DType == _options.Type && first.OutFeatures == 2 * inner && first.InFeatures == hidden.Columns && second.OutFeatures == hidden.Columns
            && !first.HasBias && !second.HasBias, "NormGatedMlpResidual", hidden, hidden);
        using Workspace.Scope scope = workspace.Open();
        (Tensor normed, Tensor both, Tensor gated) = GpuScratch.Mlp(workspace, hidden, inner);
        if (hidden.Data == 0 || hidden.Rows == 0) return;
        _stream.Enter();
        if (hidden.Rows <= Kernels.LargestGemv)
        {
            Kernels.Gemv(hidden.Data, (GpuNorm)norm, first, gated.Data, hidden.Rows, hidden.Columns, inner, GemvEpilogue.SwiGlu);
            Kernels.Gemv(gated.Data, null, second, hidden.Data, hidden.Rows, inner, hidden.Columns, GemvEpilogue.Add);
            return;
        }
        Kernels.RmsNorm(hidden.Data, (GpuNorm)norm, normed.Data, hidden.Rows, hidden.Columns);
        Gemms.Run(normed.Data, first.Weight, 0, both.Data, hidden.Rows, first.OutFeatures, first.InFeatures, 1, GemmKind.Plain);
        Kernels.SiluMultiply(both.Data, gated.Data, hidden.Rows, inner);
        Gemms.Run(gated.Data, second.Weight, 0, hidden.Data, hidden.Rows, second.OutFeatures, second.InFeatures, 1, GemmKind.Accumulate);
    }

    /// <inheritdoc/>
    public void NormLogits(Tensor hidden, PagedBatch batch, NormWeight norm, LinearWeight head, Tensor logits, Workspace workspace)
    {
        var weights = (GpuLinear)head;
        int count = batch.LogitCount;
        Require(hidden.DType == _options.Type && logits.DType == DType.Float32 && hidden.Columns == weights.InFeatures && norm.Features == hidden.Columns
            && logits.Rows == count && logits.Columns == weights.OutFeatures && !weights.HasBias, "NormLogits", hidden, logits);
        using Workspace.Scope scope = workspace.Open();
        Tensor normed = GpuScratch.Logits(workspace, hidden, count);
        if (logits.Data == 0 || count == 0) return;
        for (int i = 0; i < count; i++)
        {
            if ((uint)batch.LogitRows[i] >= (uint)hidden.Rows) throw new ArgumentOutOfRangeException(nameof(batch), batch.LogitRows[i], $"There are {hidden.Rows} rows.");
        }
        _stream.Enter();
        Kernels.GatherRmsNorm(hidden.Data, Step(batch).LogitRows, (GpuNorm)norm, normed.Data, count, hidden.Columns);
        if (count <= Kernels.LargestGemv)
            Kernels.Gemv(normed.Data, null, weights, logits.Data, count, weights.InFeatures, weights.OutFeatures, GemvEpilogue.Logits);
        else
            Gemms.Run(normed.Data, weights.Weight, 0, logits.Data, count, weights.OutFeatures, weights.InFeatures, 1, GemmKind.FloatOutput);
    }

    /// <summary>The arrays of <paramref name="batch"/> on the device; a batch outside a step is brought there now.</summary>
    private StepArrays Step(PagedBatch batch)
    {
        if (!ReferenceEquals(batch, _uploaded)) _step.Upload(batch);
        return _step;
    }
}
