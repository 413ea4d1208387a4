using ConvLLaVA.Cuda;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>The attention kernels with their launch shapes, on a batch that lies on the device.</summary>
internal sealed class AttentionKernels
{
    private const int SplitTokens = 128;
    private readonly KernelRun _run;
    private readonly PagedCase _case;
    private readonly DeviceArray _query, _keys, _values, _starts, _lengths, _tables;

    /// <summary>Uploads the batch.</summary>
    public AttentionKernels(KernelRun run, PagedCase batch)
    {
        (_run, _case) = (run, batch);
        _query = run.Upload(batch.Query, batch.Storage);
        _keys = run.Upload(batch.Keys, batch.Storage);
        _values = run.Upload(batch.Values, batch.Storage);
        _starts = run.Upload<int>(batch.QueryStarts);
        _lengths = run.Upload<int>(batch.ContextLengths);
        _tables = run.Upload<int>(batch.BlockTables);
    }

    /// <summary>Whether prefill goes through tensor cores.</summary>
    public static bool TensorCores(Storage storage, int headDim) => storage != Storage.F32 && headDim % 16 == 0;

    /// <summary>Runs the prefill kernel over all rows. Returns [tokens, heads * head_dim].</summary>
    public float[] Prefill(int queryTile = 64, int keyTile = 64)
    {
        List<int> sequences = [], starts = [];
        for (int s = 0; s < _case.Sequences.Length; s++)
        {
            for (int start = 0; start < _case.Sequences[s].Queries; start += queryTile)
            {
                sequences.Add(s);
                starts.Add(start);
            }
        }
        DeviceArray tileSequences = _run.Upload<int>(sequences.ToArray()), tileStarts = _run.Upload<int>(starts.ToArray());
        DeviceArray result = _run.Allocate(_case.Query.Length, _case.Storage);
        int headDim = _case.HeadDim, width = (headDim + 3) / 4 * 4, keyStride = width % 8 == 0 ? width + 4 : width;
        bool tensorCores = TensorCores(_case.Storage, headDim);
        string name = tensorCores ? "attention_prefill" : "attention_prefill_any";
        int block = queryTile * (tensorCores ? 2 : 4);
        int shared = tensorCores ? 4 * keyTile * (headDim + 8) * 2 : sizeof(float) * (queryTile * width + 32 * keyStride + 32 * width + queryTile * 32);
        string[] constants = [$"HEAD_DIM={headDim}", $"PAGE_SIZE={PagedCase.PageSize}", $"QUERY_TILE={queryTile}", .. keyTile == 64 ? Array.Empty<string>() : [$"KEY_TILE={keyTile}"]];
        Kernel kernel = Kernel.Compile(name + ".cu", _case.Storage, constants);
        _run.Launch(kernel, name, new Dim3(sequences.Count, _case.Heads), block, shared, _query, _keys, _values, result, tileSequences, tileStarts, _starts, _lengths,
            _tables, _case.MaxBlocks, _case.Heads, _case.KvHeads, _case.Scale);
        return _run.Read(result);
    }

    /// <summary>Runs the decode kernels over the last row of the given sequences; a negative number is a row to leave out. Returns
    /// [tokens, heads * head_dim], NaN where nothing was written.</summary>
    /// <param name="sequences">A sequence for each row.</param>
    /// <param name="group">Query heads a block serves.</param>
    /// <param name="room">Splits that the partial states have room for beyond what the longest context needs.</param>
    /// <param name="blocks">Blocks that share a row's splits; 0 for one a split.</param>
    public float[] Decode(int[] sequences, int group = 1, int room = 0, int blocks = 0)
    {
        int splits = _case.ContextLengths.Max(length => (length + SplitTokens - 1) / SplitTokens) + room, rows = sequences.Length, headDim = _case.HeadDim;
        DeviceArray rowNumbers = _run.Upload<int>(Array.ConvertAll(sequences, s => s < 0 ? -1 : _case.QueryStarts[s + 1] - 1));
        DeviceArray rowSequences = _run.Upload<int>(sequences);
        DeviceArray partial = _run.Allocate(rows * _case.Heads * splits * (headDim + 2), Storage.F32);
        DeviceArray result = _run.Allocate(_case.Query.Length, _case.Storage);
        Kernel kernel = Kernel.Compile("attention_decode.cu", _case.Storage, $"HEAD_DIM={headDim}", $"PAGE_SIZE={PagedCase.PageSize}", $"GROUP={group}");
        (int block, int shared) = DecodeBlock(_case.Storage, headDim, group);
        _run.Launch(kernel, "attention_decode", new Dim3(blocks == 0 ? splits : blocks, _case.Heads / group, rows), block, shared,
            _query, _keys, _values, partial, rowNumbers, rowSequences, _lengths, _tables, _case.MaxBlocks, rows, _case.Heads, _case.KvHeads, splits, _case.Scale);
        _run.Launch(kernel, "attention_combine", new Dim3(_case.Heads, rows), Math.Min(128, (headDim + 31) / 32 * 32),
            splits * sizeof(float), partial, rowNumbers, rowSequences, _lengths, result, rows, _case.Heads, splits);
        return _run.Read(result);
    }

    /// <summary>Threads and dynamic shared bytes of the decode kernel: as its header says.</summary>
    private static (int Threads, int SharedBytes) DecodeBlock(Storage storage, int headDim, int group)
    {
        int pack = storage.Pack(), chunks = (headDim + pack - 1) / pack, pieces = group >= 4 ? 1 : 4 / group, lanes = 1;
        while (lanes < 32 && chunks % (2 * lanes) == 0 && (lanes < 2 || chunks / lanes > pieces)) lanes *= 2;
        int threads = storage == Storage.F32 ? 256 : 128;
        return (threads, group * (threads / lanes) * (chunks * pack + 4) * sizeof(float));
    }
}
