using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>The engine's operations on an NVIDIA GPU: kernels of this repository compiled at run time, matrix products through cuBLASLt,
/// fp32 arithmetic over 16-bit (or, to compare, fp32) storage. Everything runs on one stream in the order it was called, and uploads on another beside it.
/// One thread at a time drives it: the engine's, once a model is loaded.
/// <para>Few rows (decoding) take kernels that read each weight once; many rows take cuBLASLt. A step that only decodes is recorded as
/// a graph and replayed.</para></summary>
public sealed partial class GpuBackend : IBackend
{
    private const int ReadBytes = 1 << 20;
    private readonly GpuOptions _options;
    private readonly KernelShape _shape;
    private readonly CudaContext _context;
    private readonly GpuFaults _faults;
    private readonly GpuMemory _memory;
    private readonly GpuStream _stream;
    private readonly WeightArena _arena;
    private readonly WeightBinder _binder;
    private readonly StepArrays _step;
    private readonly RopeTables _ropes;
    private readonly DecodeGraphs _graphs;
    private readonly PinnedPair _transfer;
    private readonly KernelCompiler _compiler;
    private readonly List<KernelSpec> _specs;
    private readonly HashSet<int> _forms = [];
    private Task<IReadOnlyList<byte[]>> _compiling;
    private readonly CancellationTokenSource _abandoned = new();
    private GemmPlans? _gemms;
    private GpuKernels? _kernels;
    private bool _disposed;

    /// <summary>Takes a device and starts to compile its kernels.</summary>
    /// <exception cref="InvalidInputException">The device cannot do what the options ask for.</exception>
    /// <exception cref="ConvLlavaException">The device cannot be used.</exception>
    public GpuBackend(GpuOptions options)
    {
        if (options.MemoryFraction is not (> 0 and <= 1)) throw new InvalidInputException($"The GPU memory fraction is {options.MemoryFraction} but must be over 0 and at most 1.");
        if (options.BlockSize < 1 || options.HeadDim < 2 || options.HeadDim % 2 != 0 || options.KeyValueHeads < 1 || options.Heads % options.KeyValueHeads != 0)
            throw new ArgumentException($"{options.Heads} heads, {options.KeyValueHeads} key/value heads of {options.HeadDim} and pages of {options.BlockSize} do not fit together.", nameof(options));
        _options = options;
        var undo = new Stack<IDisposable>();
        try
        {
            CudaDevice device = CudaDevice.Get(options.Device);
            CheckType(device, options.Type);
            Name = Describe(device, options.Type);
            _shape = new KernelShape(options.Type, options.HeadDim, options.Heads, options.KeyValueHeads, options.BlockSize, options.MaxDecodeRows, options.Deterministic, device.Architecture);
            _compiler = new KernelCompiler(new KernelSources(options.KernelFolder), new KernelCache(options.KernelCache), device.Architecture, options.Logger);
            IReadOnlyList<KernelSpec> specs = _shape.All();
            _specs = [.. specs];
            _context = Kept(new CudaContext(device));
            _faults = new GpuFaults(Name);
            _memory = Kept(new GpuMemory(_context, _faults, options.MemoryFraction));
            _stream = Kept(new GpuStream(_context, _faults, overlap: device.Architecture >= 90));
            _transfer = Kept(new PinnedPair(_stream, ReadBytes));
            _arena = Kept(new WeightArena(_stream, _memory));
            _binder = new WeightBinder(_arena, options.Type, options.DequantisedBytes);
            _step = Kept(new StepArrays(_stream, _memory, _shape));
            _ropes = Kept(new RopeTables(_stream, _memory));
            _graphs = Kept(new DecodeGraphs(_stream, options.Logger));
            _gemms = Kept(new GemmPlans(_stream, _memory, options.Type));
            _compiling = Task.Run(() => _compiler.Build(specs, _abandoned.Token));
        }
        catch (Exception error)
        {
            while (undo.TryPop(out IDisposable? part)) part.Dispose();
            if (error is CudaException cuda) throw new ConvLlavaException($"GPU {options.Device} cannot be used: {cuda.Message}", cuda);
            throw;
        }

        T Kept<T>(T part) where T : IDisposable
        {
            undo.Push(part);
            return part;
        }
    }

    /// <inheritdoc/>
    public string Name { get; }

    /// <inheritdoc/>
    public DType ActivationType => _options.Type;

    /// <inheritdoc/>
    public MemoryLedger Memory => _memory.Ledger;

    /// <inheritdoc/>
    public long? AvailableBytes => _memory.Available;

    /// <inheritdoc/>
    public ConvLlavaException? Fault => _faults.Fault;

    /// <summary>Steps that were replayed from a recording.</summary>
    internal long ReplayedSteps => _graphs.Replayed;

    /// <summary>Where kernels come from.</summary>
    internal KernelCompiler Compiler => _compiler;

    /// <summary>Driver allocations ever made, of device and of page-locked memory.</summary>
    internal long DriverAllocations => _context.DeviceMemory.Calls + _context.PinnedMemory.Calls;

    /// <summary>Is told of every operation; graphs are not replayed then.</summary>
    internal IGpuObserver? Observer
    {
        get => _stream.Observer;
        set => _stream.Observer = value;
    }

    /// <summary>Where everything runs, for measurements.</summary>
    internal GpuStream Stream => _stream;

    private GpuKernels Kernels => _kernels ?? throw new InvalidOperationException("Loading is not completed.");

    private GemmPlans Gemms => _gemms ?? throw new ObjectDisposedException(nameof(GpuBackend));

    /// <inheritdoc/>
    public MemoryBlock Allocate(long bytes, MemoryOwner owner)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        return _memory.Allocate(bytes, owner);
    }

    /// <inheritdoc/>
    public int PreferredTileRows(int columns) => GpuScratch.PreferredTileRows(columns, _options.Type);

    /// <inheritdoc/>
    public int PaddedDecodeRows(int rows) => GpuScratch.PaddedDecodeRows(rows);

    /// <inheritdoc/>
    public void ReserveSteps(StepLimits limits)
    {
        _step.Reserve(limits);
        _ropes.Reserve(limits.BlocksPerSequence * _options.BlockSize);
    }

    /// <inheritdoc/>
    public KvStorage CreateKvStorage(KvLayout layout)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(layout.Layers);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(layout.Blocks);
        if (layout.HeadDim != _shape.HeadDim || layout.BlockSize != _shape.BlockSize || layout.NumKeyValueHeads != _shape.KeyValueHeads)
            throw new ArgumentException($"The kernels are compiled for {_shape}, not for pages of {layout}.", nameof(layout));
        return new GpuKvStorage(layout, _options.Type, _memory);
    }

    /// <inheritdoc/>
    public void CopyKvBlock(KvStorage kv, int source, int destination)
    {
        var pages = (GpuKvStorage)kv;
        ArgumentOutOfRangeException.ThrowIfNegative(source);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(source, kv.Layout.Blocks);
        ArgumentOutOfRangeException.ThrowIfNegative(destination);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(destination, kv.Layout.Blocks);
        if (source == destination) return;
        _stream.Enter();
        nint from = (nint)(source * pages.PageBytes), to = (nint)(destination * pages.PageBytes);
        for (int layer = 0; layer < kv.Layout.Layers; layer++)
        {
            _stream.CopyOnDevice(pages.Keys(layer) + to, pages.Keys(layer) + from, pages.PageBytes);
            _stream.CopyOnDevice(pages.Values(layer) + to, pages.Values(layer) + from, pages.PageBytes);
        }
    }

    /// <inheritdoc/>
    public void Copy(Tensor source, Tensor destination)
    {
        Require(source.Rows == destination.Rows && source.Columns == destination.Columns && source.DType == destination.DType, "Copy", source, destination);
        if (destination.Data == 0 || destination.ByteLength == 0) return;
        _stream.Enter();
        _stream.CopyOnDevice(destination.Data, source.Data, source.ByteLength);
    }

    /// <inheritdoc/>
    public unsafe void Read(Tensor source, Span<float> destination)
    {
        Require(source.DType.IsFloating() && (long)source.Rows * source.Columns == destination.Length, "Read", source, source);
        if (source.Data == 0 || destination.IsEmpty) return;
        _stream.Enter();
        int size = source.DType.SizeInBytes();
        DType type = source.DType;
        fixed (float* pointer = destination)
        {
            float* to = pointer;
            _transfer.Receive(source.Data, source.ByteLength, (start, data, bytes) =>
                TensorConversion.Convert(new ReadOnlySpan<byte>(data, bytes), type, new Span<byte>((byte*)(to + (start / size)), bytes / size * sizeof(float)), DType.Float32));
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        _abandoned.Cancel();
        try
        {
            _compiling.Wait();
        }
        catch (AggregateException)
        {
            // Whoever waited for the kernels was told.
        }
        try
        {
            _stream.Enter();
            _stream.Copies.Synchronize();
            _stream.Synchronize(); // nothing may still use what is freed below
        }
        catch (ConvLlavaException)
        {
            // A broken device: what it holds is given back all the same.
        }
        _graphs.Dispose();
        _kernels?.Dispose();
        _gemms?.Dispose();
        _gemms = null;
        _ropes.Dispose();
        _step.Dispose();
        _arena.Dispose();
        _transfer.Dispose();
        _stream.Dispose();
        _memory.Dispose();
        _context.Dispose();
        _abandoned.Dispose();
    }

    /// <summary>A product of many rows. A quantised matrix is turned into the storage type first, a tile of rows after the other.</summary>
    private void Multiply(nint x, GpuLinear weight, nint bias, nint y, int rows, GemmKind kind)
    {
        if (weight.Form == KernelWeights.Stored)
        {
            Gemms.Run(x, weight.Weight, bias, y, rows, weight.OutFeatures, weight.InFeatures, weight.Alpha, kind);
            return;
        }
        int size = _options.Type.SizeInBytes(), outputSize = (kind & GemmKind.FloatOutput) != 0 ? sizeof(float) : size, tile = _binder.TileRows(weight.OutFeatures, weight.InFeatures);
        for (int start = 0; start < weight.OutFeatures; start += tile)
        {
            int count = Math.Min(tile, weight.OutFeatures - start);
            Kernels.Dequantise(weight, _arena.Scratch, start, count);
            Gemms.Run(x, _arena.Scratch, bias == 0 ? 0 : bias + (start * size), y + (start * outputSize), rows, count, weight.InFeatures, weight.Alpha, kind, weight.OutFeatures);
        }
    }

    private static void CheckType(CudaDevice device, DType type)
    {
        if (!type.IsFloating()) throw new InvalidInputException($"The GPU computes with float16, bfloat16 or float32, not with {type.Name()}.");
        if (type == DType.BFloat16 && device.Architecture < 80)
        {
            throw new InvalidInputException($"{device.Name} has compute capability {device.ComputeCapability} and no bfloat16 arithmetic (8.0 and newer have): "
                + "use float16 (--dtype float16), or float32 to compare.");
        }
    }

    private static string Describe(CudaDevice device, DType type)
        => $"{(CudaLibraries.IsEmulated ? "emulated device" : "cuda")} ({device.Name}, sm_{device.Architecture}, {type.Name()})";

    private static void Require(bool condition, string operation, Tensor input, Tensor output)
    {
        if (!condition)
        {
            throw new ArgumentException($"{operation}: [{input.Rows}, {input.Columns}] {input.DType.Name()} and "
                + $"[{output.Rows}, {output.Columns}] {output.DType.Name()} do not fit together.");
        }
    }

    private void RequireRows(string operation, Tensor input, int inputColumns, Tensor output, int outputColumns)
        => Require(input.DType == _options.Type && output.DType == _options.Type && input.Rows == output.Rows
            && input.Columns == inputColumns && output.Columns == outputColumns, operation, input, output);
}
