using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>The engine's operations on the processor: float arithmetic, weights in stored precision used where they lie in
/// the memory map, one result whatever the instruction set, the number of threads and the rest of the batch.</summary>
public sealed unsafe partial class CpuBackend : IBackend
{
    /// <summary>Most threads that can be asked for.</summary>
    public const int MaxThreads = 1024;

    private const int MostGatheredChannels = 16384; // of NormGather, which needs four rows of them

    private readonly WorkerPool _pool;
    private readonly CpuKernels _kernels;
    private readonly List<NativeBlock> _owned = [];
    private readonly HashSet<nint> _mapped = [];
    // Weights that the caller rounded into memory of this backend: held already, and not mapped.
    private readonly List<NativeBlock> _converted = [];
    private readonly Dictionary<RopeParameters, RopeTable> _ropes = [];
    private readonly Sampler _sampler = new();
    private readonly GemmBlocks _blocks;
    private readonly Scratch _scratch;
    private readonly List<QueryTile> _tiles = []; // of the running attention
    private Scratch? _attentionScratch;
    private long _mappedBytes;
    private bool _disposed;

    /// <summary>Creates the backend.</summary>
    /// <param name="threads">Threads to compute on; 0 for as many as the process may use.</param>
    /// <param name="path">Instructions to use; Auto takes the fastest supported unless the environment variable
    /// <c>CONVLLAVA_CPU</c> (avx512, avx2, vector128, scalar) names one.</param>
    /// <exception cref="InvalidInputException">The number of threads or the path cannot be had.</exception>
    public CpuBackend(int threads = 0, CpuPath path = CpuPath.Auto) : this(threads, path, GemmBlocks.Current) { }

    /// <summary>The same with products cut as for another machine, for tests.</summary>
    internal CpuBackend(int threads, CpuPath path, GemmBlocks blocks)
    {
        if (threads is < 0 or > MaxThreads)
            throw new InvalidInputException($"{threads} threads were asked for; it can be 1 to {MaxThreads}, or 0 for as many as there are processors.");
        Path = CpuPaths.Resolve(path, Environment.GetEnvironmentVariable(CpuPaths.Variable));
        Threads = threads == 0 ? Math.Min(Environment.ProcessorCount, MaxThreads) : threads;
        _kernels = CpuKernels.Create(Path);
        _scratch = new Scratch(Memory, Threads, Math.Max(_kernels.ScratchFloats(blocks), 4 * MostGatheredChannels));
        _blocks = blocks;
        _pool = new WorkerPool(Threads);
    }

    /// <summary>Instructions in use; never Auto.</summary>
    public CpuPath Path { get; }

    /// <summary>Threads in use, the caller's included.</summary>
    public int Threads { get; }

    /// <inheritdoc/>
    public string Name => $"cpu ({CpuPaths.Describe(Path)}, {Threads} {(Threads == 1 ? "thread" : "threads")})";

    /// <inheritdoc/>
    public DType ActivationType => DType.Float32;

    /// <inheritdoc/>
    public MemoryLedger Memory { get; } = new();

    /// <inheritdoc/>
    public long? AvailableBytes => null;

    /// <inheritdoc/>
    public ConvLlavaException? Fault => null;

    /// <summary>The kernels, for tests and probes.</summary>
    internal CpuKernels Kernels => _kernels;

    /// <summary>The workers, for probes.</summary>
    internal WorkerPool Pool => _pool;

    /// <inheritdoc/>
    public MemoryBlock Allocate(long bytes, MemoryOwner owner)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        var block = new NativeBlock(Memory, owner, bytes);
        if (owner == MemoryOwner.Weights)
        {
            lock (_converted) _converted.Add(block);
        }
        return block;
    }

    /// <inheritdoc/>
    public int PreferredTileRows(int columns)
    {
        // The expanded rows should stay in the last-level cache until they are consumed, and still make tasks for all threads.
        long rows = _blocks.Wide / Math.Max(1, columns);
        return (int)Math.Clamp(rows / 192 * 192, 192, 9216);
    }

    /// <inheritdoc/>
    public int PaddedDecodeRows(int rows) => rows;

    /// <inheritdoc/>
    public void ReserveSteps(StepLimits limits) { }

    /// <inheritdoc/>
    public KvStorage CreateKvStorage(KvLayout layout)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(layout.Layers);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(layout.Blocks);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(layout.BlockSize);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(layout.NumKeyValueHeads);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(layout.HeadDim);
        return new KvPages(layout, Memory);
    }

    /// <inheritdoc/>
    public void CopyKvBlock(KvStorage kv, int source, int destination)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(source);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(source, kv.Layout.Blocks);
        ArgumentOutOfRangeException.ThrowIfNegative(destination);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(destination, kv.Layout.Blocks);
        ((KvPages)kv).CopyBlock(source, destination);
    }

    /// <inheritdoc/>
    public void Copy(Tensor source, Tensor destination)
    {
        Require(source.Rows == destination.Rows && source.Columns == destination.Columns && source.DType == destination.DType,
            "Copy", source, destination);
        if (destination.Data == 0) return;
        Buffer.MemoryCopy((void*)source.Data, (void*)destination.Data, destination.ByteLength, source.ByteLength);
    }

    /// <inheritdoc/>
    public void Read(Tensor source, Span<float> destination)
    {
        Require(source.DType == DType.Float32 && (long)source.Rows * source.Columns == destination.Length, "Read", source, source);
        if (source.Data == 0) return;
        new ReadOnlySpan<float>((void*)source.Data, destination.Length).CopyTo(destination);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        _pool.Dispose();
        _scratch.Dispose();
        _attentionScratch?.Dispose();
        _quantInput?.Dispose();
        foreach (RopeTable rope in _ropes.Values) rope.Dispose();
        foreach (NativeBlock block in _owned) block.Dispose();
        Memory.Add(MemoryOwner.MappedWeights, -_mappedBytes);
        _mappedBytes = 0;
    }

    private static void Require(bool condition, string operation, Tensor input, Tensor output)
    {
        if (!condition)
        {
            throw new ArgumentException($"{operation}: [{input.Rows}, {input.Columns}] {input.DType.Name()} and "
                + $"[{output.Rows}, {output.Columns}] {output.DType.Name()} do not fit together.");
        }
    }

    private static void RequireRows(string operation, Tensor input, int inputColumns, Tensor output, int outputColumns)
        => Require(input.DType == DType.Float32 && output.DType == DType.Float32 && input.Rows == output.Rows
            && input.Columns == inputColumns && output.Columns == outputColumns, operation, input, output);
}
