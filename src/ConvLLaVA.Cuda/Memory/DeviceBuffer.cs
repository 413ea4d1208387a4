namespace ConvLLaVA.Cuda;

/// <summary>A block of device memory, straight from the driver.</summary>
public sealed unsafe class DeviceBuffer : CudaHandle
{
    private readonly CudaContext _context;

    /// <summary>Allocates <paramref name="bytes"/> uninitialised bytes; the context must be current.</summary>
    /// <exception cref="CudaException">The device does not have that much left (<see cref="CudaException.IsOutOfMemory"/>).</exception>
    public DeviceBuffer(CudaContext context, long bytes) : base(HandleKind.DeviceMemory)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(bytes, 1);
        ObjectDisposedException.ThrowIf(context.IsDisposed, context);
        _context = context;
        ByteLength = bytes;
        ulong address;
        CuResult result = CuDriver.cuMemAlloc_v2(&address, (nuint)bytes);
        if (result != CuResult.Success)
        {
            CudaException error = Check.Error(result, nameof(CuDriver.cuMemAlloc_v2));
            throw new CudaException(error.Call, error.ResultName, error.ResultCode, $"{error.Description} ({bytes} bytes asked for)") { DriverResult = result };
        }
        Own((nint)address, context);
        context.DeviceMemory.Allocated(bytes);
    }

    /// <summary>Bytes.</summary>
    public long ByteLength { get; }

    /// <summary>Device address of the first byte; aligned to 256 bytes at least.</summary>
    /// <exception cref="ObjectDisposedException">It was freed.</exception>
    public ulong Address => (ulong)Handle;

    private protected override MemoryCounter Counter => _context.DeviceMemory;

    private protected override long CountedBytes => ByteLength;
}
