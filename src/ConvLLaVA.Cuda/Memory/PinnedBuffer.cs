namespace ConvLLaVA.Cuda;

/// <summary>Page-locked host memory, which the device can read and write on its own.</summary>
public sealed unsafe class PinnedBuffer : CudaHandle
{
    private readonly CudaContext _context;

    /// <summary>Allocates <paramref name="bytes"/> bytes; the context must be current.</summary>
    /// <exception cref="CudaException">The machine cannot page-lock that much.</exception>
    public PinnedBuffer(CudaContext context, long bytes, CuHostAllocFlags flags = CuHostAllocFlags.Portable) : base(HandleKind.PinnedMemory)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(bytes, 1);
        ObjectDisposedException.ThrowIf(context.IsDisposed, context);
        _context = context;
        ByteLength = bytes;
        void* pointer;
        Check.Ok(CuDriver.cuMemHostAlloc(&pointer, (nuint)bytes, flags));
        Own((nint)pointer, context);
        context.PinnedMemory.Allocated(bytes);
    }

    /// <summary>Bytes.</summary>
    public long ByteLength { get; }

    /// <summary>The first byte.</summary>
    /// <exception cref="ObjectDisposedException">It was freed.</exception>
    public void* Pointer => (void*)Handle;

    private protected override MemoryCounter Counter => _context.PinnedMemory;

    private protected override long CountedBytes => ByteLength;

    /// <summary>The memory from byte <paramref name="offset"/> as <paramref name="count"/> values.</summary>
    public Span<T> Span<T>(long offset, int count) where T : unmanaged
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset + (long)count * sizeof(T), ByteLength);
        return new Span<T>((byte*)Pointer + offset, count);
    }
}

/// <summary>Existing host memory, page-locked while this object is not disposed.</summary>
public sealed unsafe class PinnedRegistration : CudaHandle
{
    private readonly CudaContext _context;

    /// <summary>Page-locks <paramref name="bytes"/> bytes from <paramref name="pointer"/>, which must stay allocated until dispose; the
    /// context must be current.</summary>
    /// <exception cref="CudaException">The memory cannot be page-locked, such as a read-only file mapping on older systems.</exception>
    public PinnedRegistration(CudaContext context, void* pointer, long bytes, CuHostRegisterFlags flags = CuHostRegisterFlags.Portable) : base(HandleKind.RegisteredMemory)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(bytes, 1);
        ObjectDisposedException.ThrowIf(context.IsDisposed, context);
        _context = context;
        ByteLength = bytes;
        Check.Ok(CuDriver.cuMemHostRegister_v2(pointer, (nuint)bytes, flags));
        Own((nint)pointer, context);
        context.PinnedMemory.Allocated(bytes);
    }

    /// <summary>Bytes.</summary>
    public long ByteLength { get; }

    private protected override MemoryCounter Counter => _context.PinnedMemory;

    private protected override long CountedBytes => ByteLength;
}
