namespace ConvLLaVA.Engine.Tensors;

/// <summary>The activation memory of one step: a stack that forward passes take matrices from and give back by scope.
/// A planning workspace has no memory at all and only remembers how high the stack would have grown; running the same
/// forward pass over it says how large the real one must be.</summary>
public sealed class Workspace : IDisposable
{
    private const int Alignment = 256;
    private readonly MemoryBlock? _block;
    private readonly long _capacity;
    private long _used;

    private Workspace(MemoryBlock? block, long capacity, DType activationType)
    {
        _block = block;
        _capacity = capacity;
        ActivationType = activationType;
    }

    /// <summary>A workspace over <paramref name="block"/>, which it owns from now on.</summary>
    /// <param name="block">Its memory.</param>
    /// <param name="activationType">Type of matrices taken without naming one: the backend's.</param>
    public Workspace(MemoryBlock block, DType activationType = DType.Float32) : this(block, block.ByteLength, activationType) { }

    /// <summary>A workspace without memory that measures: every matrix it hands out has a zero address.</summary>
    public static Workspace ForPlanning(DType activationType = DType.Float32) => new(null, long.MaxValue, activationType);

    /// <summary>Type of matrices taken without naming one.</summary>
    public DType ActivationType { get; }

    /// <summary>True when there is no memory behind it: an operation takes what it would take and computes nothing.</summary>
    public bool IsPlanning => _block is null;

    /// <summary>The most bytes ever in use, as the capacity must be.</summary>
    public long HighWaterMark { get; private set; }

    /// <summary>Capacity in bytes.</summary>
    public long Capacity => _capacity;

    /// <summary>Takes an uninitialised matrix <c>[rows, columns]</c> of the activation type, valid until the enclosing scope ends.</summary>
    /// <exception cref="ConvLlavaException">The step is larger than what was planned.</exception>
    public Tensor Take(int rows, int columns) => Take(rows, columns, ActivationType);

    /// <summary>Takes an uninitialised matrix <c>[rows, columns]</c>, valid until the enclosing scope ends.</summary>
    /// <exception cref="ConvLlavaException">The step is larger than what was planned.</exception>
    public Tensor Take(int rows, int columns, DType dtype)
    {
        long bytes = checked((long)rows * columns * dtype.SizeInBytes());
        long end = checked(_used + ((bytes + Alignment - 1) & ~(long)(Alignment - 1)));
        if (end > _capacity)
            throw new ConvLlavaException($"The workspace holds {_capacity} bytes but this step needs {end}: it is larger than the step that was planned at load.");
        nint data = _block is null ? 0 : _block.Data + (nint)_used;
        _used = end;
        HighWaterMark = Math.Max(HighWaterMark, end);
        return new Tensor(data, dtype, rows, columns);
    }

    /// <summary>Opens a scope: everything taken after it is given back when it is disposed.</summary>
    public Scope Open() => new(this);

    /// <inheritdoc/>
    public void Dispose() => _block?.Dispose();

    /// <summary>Gives back on dispose what was taken since it was opened.</summary>
    public readonly ref struct Scope
    {
        private readonly Workspace _workspace;
        private readonly long _mark;

        internal Scope(Workspace workspace)
        {
            _workspace = workspace;
            _mark = workspace._used;
        }

        /// <inheritdoc cref="IDisposable.Dispose"/>
        public void Dispose() => _workspace._used = _mark;
    }
}
