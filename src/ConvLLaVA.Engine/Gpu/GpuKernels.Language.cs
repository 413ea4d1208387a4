using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

internal sealed partial class GpuKernels
{
    private const int GemvScratchBytes = 32;
    private readonly Dictionary<(int Rows, int Epilogue, int Form), CudaFunction> _gemv = [];
    private readonly Dictionary<int, CudaFunction> _dequantise = [];
    private CudaFunction _embedTokens = null!;
    private CudaFunction _rmsNorm = null!;
    private CudaFunction _gatherRmsNorm = null!;
    private CudaFunction _ropeKv = null!;
    private CudaFunction _prefill = null!;
    private CudaFunction? _decode;
    private CudaFunction? _combine;
    private CudaFunction _siluMultiply = null!;

    /// <summary>hidden[t] = table[ids[t]]; negative ids leave their row alone. hidden [tokens, width]</summary>
    public void EmbedTokens(nint ids, nint table, nint hidden, int tokens, int width)
    {
        var arguments = default(KernelArguments);
        arguments.Add(ids);
        arguments.Add(table);
        arguments.Add(hidden);
        arguments.Add(tokens);
        arguments.Add(width);
        _stream.Launch(_embedTokens, new Dim3(tokens), new Dim3(128), 0, ref arguments, new Cost("embed_tokens", 2L * tokens * width * _elementBytes, 0));
    }

    /// <summary>RMSNorm of every row. [rows, columns]</summary>
    public void RmsNorm(nint input, GpuNorm norm, nint output, int rows, int columns)
    {
        var arguments = default(KernelArguments);
        arguments.Add(input);
        arguments.Add(norm.Weight);
        arguments.Add(output);
        arguments.Add(rows);
        arguments.Add(columns);
        arguments.Add(norm.Epsilon);
        _stream.Launch(_rmsNorm, new Dim3(rows), new Dim3(Threads), 0, ref arguments, new Cost("rms_norm", 2L * rows * columns * _elementBytes, 4L * rows * columns));
    }

    /// <summary>RMSNorm of row rowNumbers[r] of input into row r of output. output [rows, columns]</summary>
    public void GatherRmsNorm(nint input, nint rowNumbers, GpuNorm norm, nint output, int rows, int columns)
    {
        var arguments = default(KernelArguments);
        arguments.Add(input);
        arguments.Add(rowNumbers);
        arguments.Add(norm.Weight);
        arguments.Add(output);
        arguments.Add(rows);
        arguments.Add(columns);
        arguments.Add(norm.Epsilon);
        _stream.Launch(_gatherRmsNorm, new Dim3(rows), new Dim3(Threads), 0, ref arguments,
            new Cost("gather_rms_norm", 2L * rows * columns * _elementBytes, 4L * rows * columns));
    }

    /// <summary>RoPE on queries and keys, keys and values into their pages. qkv [tokens, (heads + 2 * kv_heads) * head_dim]</summary>
    public void RopeKv(nint qkv, nint angles, nint positions, nint slots, nint query, nint keys, nint values, int tokens)
    {
        int half = _shape.HeadDim / 2, width = half % _shape.Pack == 0 ? _shape.Pack : 1;
        int items = ((_shape.Heads + _shape.KeyValueHeads) * half / width) + (_shape.KeyValueHeads * _shape.HeadDim / width);
        var arguments = default(KernelArguments);
        arguments.Add(qkv);
        arguments.Add(angles);
        arguments.Add(positions);
        arguments.Add(slots);
        arguments.Add(query);
        arguments.Add(keys);
        arguments.Add(values);
        arguments.Add(tokens);
        arguments.Add(_shape.Heads);
        arguments.Add(_shape.KeyValueHeads);
        long elements = (long)tokens * (_shape.Heads + (2 * _shape.KeyValueHeads)) * _shape.HeadDim;
        _stream.Launch(_ropeKv, new Dim3(Ceiling(items, Threads), tokens), new Dim3(Threads), 0, ref arguments,
            new Cost("rope_kv", 2 * elements * _elementBytes, 3 * elements));
    }

    /// <summary>Attention of the step's tiles of query rows over their pages. query and output [tokens, heads * head_dim]</summary>
    public void PrefillAttention(nint query, nint keys, nint values, nint output, StepArrays step)
    {
        var arguments = default(KernelArguments);
        arguments.Add(query);
        arguments.Add(keys);
        arguments.Add(values);
        arguments.Add(output);
        arguments.Add(step.TileSequences);
        arguments.Add(step.TileStarts);
        arguments.Add(step.QueryStarts);
        arguments.Add(step.ContextLengths);
        arguments.Add(step.BlockTables);
        arguments.Add(step.TableStride);
        arguments.Add(_shape.Heads);
        arguments.Add(_shape.KeyValueHeads);
        arguments.Add(Scale);
        (int threads, int shared) = PrefillBlock(_shape);
        _stream.Launch(_prefill, new Dim3(step.TileCount, _shape.Heads), new Dim3(threads), shared, ref arguments,
            new Cost("attention_prefill", step.PrefillBytes(_elementBytes), step.PrefillFlops()));
    }

    /// <summary>Attention of the step's decoding rows over their pages, in splits of the context, and the sum of the splits.</summary>
    /// <param name="query">[tokens, heads * head_dim]</param>
    /// <param name="keys">Keys of the layer.</param>
    /// <param name="values">Values of the layer.</param>
    /// <param name="output">As the query.</param>
    /// <param name="partial">Room for the splits' states, float. [rows, heads, splits, head_dim + 2]</param>
    /// <param name="splits">Splits of the longest context that the step may have.</param>
    /// <param name="step">The step.</param>
    public void DecodeAttention(nint query, nint keys, nint values, nint output, nint partial, int splits, StepArrays step)
    {
        int rows = step.DecodeCount;
        var arguments = default(KernelArguments);
        arguments.Add(query);
        arguments.Add(keys);
        arguments.Add(values);
        arguments.Add(partial);
        arguments.Add(step.DecodeRows);
        arguments.Add(step.DecodeSequences);
        arguments.Add(step.ContextLengths);
        arguments.Add(step.BlockTables);
        arguments.Add(step.TableStride);
        arguments.Add(rows);
        arguments.Add(_shape.Heads);
        arguments.Add(_shape.KeyValueHeads);
        arguments.Add(splits);
        arguments.Add(Scale);
        (int threads, int shared) = DecodeBlock(_shape);
        _stream.Launch(_decode!, new Dim3(splits, _shape.Heads / _shape.Group, rows), new Dim3(threads), shared, ref arguments,
            new Cost("attention_decode", step.DecodeBytes(_elementBytes), step.DecodeFlops()));

        var combine = default(KernelArguments);
        combine.Add(partial);
        combine.Add(step.DecodeRows);
        combine.Add(step.DecodeSequences);
        combine.Add(step.ContextLengths);
        combine.Add(output);
        combine.Add(rows);
        combine.Add(_shape.Heads);
        combine.Add(splits);
        _stream.Launch(_combine!, new Dim3(_shape.Heads, rows), new Dim3(Math.Min(128, (_shape.HeadDim + 31) / 32 * 32)), splits * sizeof(float), ref combine,
            new Cost("attention_combine", (long)rows * _shape.Heads * splits * (_shape.HeadDim + 2) * sizeof(float), 0));
    }

    /// <summary>y = silu(gate) * up. gateUp [rows, 2 * width], y [rows, width]</summary>
    public void SiluMultiply(nint gateUp, nint y, int rows, int width)
    {
        var arguments = default(KernelArguments);
        arguments.Add(gateUp);
        arguments.Add(y);
        arguments.Add(rows);
        arguments.Add(width);
        int across = Ceiling(width, Threads * (width % _shape.Pack == 0 ? _shape.Pack : 1));
        _stream.Launch(_siluMultiply, new Dim3(across, rows), new Dim3(Threads), 0, ref arguments, new Cost("silu_multiply", 3L * rows * width * _elementBytes, 5L * rows * width));
    }

    /// <summary>Rows of the next GEMV when <paramref name="left"/> are left, of a matrix with <paramref name="inFeatures"/> columns; the norm
    /// keeps all of them in shared memory.</summary>
    public int GemvRows(int left, int inFeatures, bool norm)
    {
        foreach (int rows in _shape.GemvRows)
        {
            if (rows <= left && (!norm || NormBytes(rows, inFeatures) <= _maxShared)) return rows;
        }
        throw new ConvLlavaException($"A row of {inFeatures} columns does not fit the shared memory of this GPU ({_maxShared} bytes a block).");
    }

    /// <summary>Most rows for which GEMV kernels are used.</summary>
    public int LargestGemv => _shape.Deterministic ? int.MaxValue : _shape.GemvRows[0];

    /// <summary>y = epilogue(norm(x) W^T) of few rows, the weights read once for each group of rows. Norm only with SwiGLU.</summary>
    public void Gemv(nint x, GpuNorm? norm, GpuLinear weight, nint y, int rows, int inFeatures, int outFeatures, int epilogue)
    {
        int outputBytes = epilogue == GemvEpilogue.Logits ? sizeof(float) : _elementBytes;
        for (int start = 0, count; start < rows; start += count)
        {
            count = GemvRows(rows - start, inFeatures, norm is not null);
            CudaFunction kernel = _gemv[(count, epilogue, weight.Form)];
            int shared = norm is null ? 0 : NormBytes(count, inFeatures);
            var arguments = default(KernelArguments);
            arguments.Add(x + (nint)((long)start * inFeatures * _elementBytes));
            arguments.Add(norm?.Weight ?? 0);
            arguments.Add(weight.Weight);
            arguments.Add(weight.Scales);
            arguments.Add(weight.Bias);
            arguments.Add(y + (nint)((long)start * outFeatures * outputBytes));
            arguments.Add(inFeatures);
            arguments.Add(outFeatures);
            arguments.Add(norm?.Epsilon ?? 0f);
            int groups = epilogue == GemvEpilogue.SwiGlu ? outFeatures : Ceiling(outFeatures, 2);
            long elements = (long)weight.InFeatures * weight.OutFeatures;
            _stream.Launch(kernel, new Dim3(Math.Min(Ceiling(groups, Threads / 32), FillingBlocks(kernel, shared))), new Dim3(Threads), shared, ref arguments,
                new Cost(Names[epilogue], weight.ByteLength, 2L * count * elements));
        }
    }

    /// <summary>Norm, projection, RoPE and the write into pages of few rows.</summary>
    public void GemvQkv(nint x, GpuNorm norm, GpuLinear weight, nint angles, StepArrays step, nint query, nint keys, nint values, int rows)
    {
        int queryWidth = _shape.Heads * _shape.HeadDim, inFeatures = weight.InFeatures;
        for (int start = 0, count; start < rows; start += count)
        {
            count = GemvRows(rows - start, inFeatures, true);
            CudaFunction kernel = _gemv[(count, GemvEpilogue.RopeKv, weight.Form)];
            int shared = NormBytes(count, inFeatures);
            var arguments = default(KernelArguments);
            arguments.Add(x + (nint)((long)start * inFeatures * _elementBytes));
            arguments.Add(norm.Weight);
            arguments.Add(weight.Weight);
            arguments.Add(weight.Scales);
            arguments.Add(angles);
            arguments.Add(step.Positions + (start * sizeof(int)));
            arguments.Add(step.Slots + (start * sizeof(int)));
            arguments.Add(query + (nint)((long)start * queryWidth * _elementBytes));
            arguments.Add(keys);
            arguments.Add(values);
            arguments.Add(inFeatures);
            arguments.Add(_shape.Heads);
            arguments.Add(_shape.KeyValueHeads);
            arguments.Add(norm.Epsilon);
            long elements = (long)inFeatures * weight.OutFeatures;
            _stream.Launch(kernel, new Dim3(Math.Min(Ceiling(weight.OutFeatures, Threads / 16), FillingBlocks(kernel, shared))), new Dim3(Threads), shared, ref arguments,
                new Cost("gemv_qkv", weight.ByteLength, 2L * count * elements));
        }
    }

    /// <summary>Rows of a quantised matrix, from <paramref name="firstRow"/> on, in the storage type. output [rows, in]</summary>
    public void Dequantise(GpuLinear weight, nint output, int firstRow, int rows)
    {
        var arguments = default(KernelArguments);
        arguments.Add(weight.Weight);
        arguments.Add(weight.Scales);
        arguments.Add(weight.Factors);
        arguments.Add(output);
        arguments.Add(firstRow);
        arguments.Add(rows);
        arguments.Add(weight.InFeatures);
        long elements = (long)rows * weight.InFeatures;
        int grid = (int)Math.Min((elements + (16 * Threads) - 1) / (16 * Threads), 16L * _multiprocessors);
        _stream.Launch(_dequantise[weight.Form], new Dim3(grid), new Dim3(Threads), 0, ref arguments,
            new Cost("dequantise", (weight.ByteLength * rows / weight.OutFeatures) + (elements * _elementBytes), 2 * elements));
    }

    private static readonly Dictionary<int, string> Names = new()
    {
        [GemvEpilogue.Add] = "gemv add",
        [GemvEpilogue.SwiGlu] = "gemv swiglu",
        [GemvEpilogue.Logits] = "gemv logits",
    };

    private float Scale => 1f / MathF.Sqrt(_shape.HeadDim);

    private int NormBytes(int rows, int inFeatures) => NormBytes(_shape, rows, inFeatures);

    /// <summary>Dynamic shared memory of a GEMV that normalises its input.</summary>
    internal static int NormBytes(KernelShape shape, int rows, int inFeatures) => GemvScratchBytes + (rows * inFeatures * shape.Type.SizeInBytes());

    /// <summary>The prefill kernel's block.</summary>
    internal static (int Threads, int SharedBytes) PrefillBlock(KernelShape shape)
    {
        const int AnyKeyTile = 32, Tile = KernelShape.AnyQueryTile;
        if (shape.TensorAttention) return (KernelShape.TensorQueryTile * 2, shape.PrefillBytes(shape.KeyTile));
        int width = (shape.HeadDim + 3) / 4 * 4, keyStride = width % 8 == 0 ? width + 4 : width;
        return (Tile * 4, sizeof(float) * ((Tile * width) + (AnyKeyTile * keyStride) + (AnyKeyTile * width) + (Tile * AnyKeyTile)));
    }

    /// <summary>The decode kernel's block: teams of lanes share a key, and leave their sums in shared memory.</summary>
    internal static (int Threads, int SharedBytes) DecodeBlock(KernelShape shape)
    {
        int threads = shape.Type == DType.Float32 ? 256 : 128, chunks = Ceiling(shape.HeadDim, shape.Pack), pieces = shape.Group >= 4 ? 1 : 4 / shape.Group, lanes = 1;
        while (lanes < 32 && chunks % (2 * lanes) == 0 && (lanes < 2 || chunks / lanes > pieces)) lanes *= 2;
        return (threads, shape.Group * (threads / lanes) * ((chunks * shape.Pack) + 4) * sizeof(float));
    }

    private void LoadLanguage()
    {
        _embedTokens = Function(_shape.Plain("embed_tokens.cu"));
        KernelSpec rmsNorm = _shape.Plain("rms_norm.cu");
        _rmsNorm = Function(rmsNorm);
        _gatherRmsNorm = Function(rmsNorm, "gather_rms_norm");
        _ropeKv = Function(_shape.RopeKv);
        _prefill = WithShared(Function(_shape.PrefillAttention), PrefillBlock(_shape).SharedBytes);
        _siluMultiply = Function(_shape.Plain("silu_multiply.cu"));
        if (!_shape.Deterministic)
        {
            _decode = WithShared(Function(_shape.DecodeAttention), DecodeBlock(_shape).SharedBytes);
            _combine = Function(_shape.DecodeAttention, "attention_combine");
        }
        LoadProducts(KernelWeights.Stored);
    }

    private void LoadQuantised(int form)
    {
        LoadProducts(form);
        _dequantise.Add(form, Function(_shape.Dequantise(form)));
    }

    private void LoadProducts(int form)
    {
        foreach (ProductKernel product in _shape.Products(form))
        {
            CudaFunction kernel = Function(product.Spec);
            _gemv.Add((product.Rows, product.Epilogue, form), product.Norm ? WithShared(kernel, _maxShared) : kernel);
        }
    }
}
