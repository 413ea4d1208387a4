namespace ConvLLaVA.Cuda;

/// <summary>A queue of work on a device.</summary>
public sealed unsafe class CudaStream : CudaHandle
{
    /// <summary>Creates a stream that is not ordered with the default stream.</summary>
    /// <param name="context">The context, current on this thread.</param>
    /// <param name="priority">0 is normal; lower numbers go first.</param>
    public CudaStream(CudaContext context, int priority = 0) : base(HandleKind.Stream)
    {
        Context = context;
        ObjectDisposedException.ThrowIf(context.IsDisposed, context);
        nint stream;
        Check.Ok(CuDriver.cuStreamCreateWithPriority(&stream, CuStreamFlags.NonBlocking, priority));
        Own(stream, context);
    }

    /// <summary>The context.</summary>
    public CudaContext Context { get; }

    /// <summary>True when all work has finished.</summary>
    /// <exception cref="CudaException">Some work failed.</exception>
    public bool IsIdle
    {
        get
        {
            CuResult result = CuDriver.cuStreamQuery(Handle);
            if (result == CuResult.NotReady) return false;
            Check.Ok(result, nameof(CuDriver.cuStreamQuery));
            return true;
        }
    }

    /// <summary>Whether work is recorded instead of run.</summary>
    public CuStreamCaptureStatus CaptureStatus
    {
        get
        {
            CuStreamCaptureStatus status;
            Check.Ok(CuDriver.cuStreamIsCapturing(Handle, &status));
            return status;
        }
    }

    /// <summary>Waits on the calling thread until all work has finished.</summary>
    /// <exception cref="CudaException">Some work failed.</exception>
    public void Synchronize() => Check.Ok(CuDriver.cuStreamSynchronize(Handle));

    /// <summary>Lets later work of this stream wait until <paramref name="waitedFor"/> has happened.</summary>
    public void Wait(CudaEvent waitedFor) => Check.Ok(CuDriver.cuStreamWaitEvent(Handle, waitedFor.Handle, 0));

    /// <summary>Copies host memory to the device. Page-locked memory must stay unchanged until the copy is done; other memory is copied
    /// away before this returns.</summary>
    public void CopyToDevice(ulong destination, void* source, long bytes) =>
        Check.Ok(CuDriver.cuMemcpyHtoDAsync_v2(destination, source, (nuint)bytes, Handle));

    /// <summary>Copies a span to the device and waits for nothing; see <see cref="CopyToDevice(ulong, void*, long)"/>.</summary>
    public void CopyToDevice<T>(ulong destination, ReadOnlySpan<T> source) where T : unmanaged
    {
        fixed (T* pointer = source) CopyToDevice(destination, pointer, (long)source.Length * sizeof(T));
    }

    /// <summary>Copies device memory to the host; the values are there once the stream has been waited for.</summary>
    public void CopyToHost(void* destination, ulong source, long bytes) =>
        Check.Ok(CuDriver.cuMemcpyDtoHAsync_v2(destination, source, (nuint)bytes, Handle));

    /// <summary>Copies device memory to a span and waits until the values are there.</summary>
    public void ReadBack<T>(Span<T> destination, ulong source) where T : unmanaged
    {
        fixed (T* pointer = destination)
        {
            CopyToHost(pointer, source, (long)destination.Length * sizeof(T));
            Synchronize();
        }
    }

    /// <summary>Copies within device memory.</summary>
    public void CopyOnDevice(ulong destination, ulong source, long bytes) =>
        Check.Ok(CuDriver.cuMemcpyDtoDAsync_v2(destination, source, (nuint)bytes, Handle));

    /// <summary>Fills <paramref name="count"/> bytes.</summary>
    public void Fill(ulong destination, byte value, long count) => Check.Ok(CuDriver.cuMemsetD8Async(destination, value, (nuint)count, Handle));

    /// <summary>Fills <paramref name="count"/> 32-bit words.</summary>
    public void Fill(ulong destination, uint value, long count) => Check.Ok(CuDriver.cuMemsetD32Async(destination, value, (nuint)count, Handle));

    /// <summary>Starts to record work instead of running it.</summary>
    public void BeginCapture(CuStreamCaptureMode mode = CuStreamCaptureMode.ThreadLocal) => Check.Ok(CuDriver.cuStreamBeginCapture_v2(Handle, mode));

    /// <summary>Ends recording and gives what was recorded.</summary>
    /// <exception cref="CudaException">The recording was broken by an error.</exception>
    public CudaGraph EndCapture()
    {
        nint graph = 0;
        Check.Ok(CuDriver.cuStreamEndCapture(Handle, &graph));
        return new CudaGraph(Context, graph);
    }

    /// <summary>Ends recording after an error and drops what was recorded; never throws.</summary>
    public void AbandonCapture()
    {
        nint graph = 0;
        if (IsDisposed) return;
        CuDriver.cuStreamEndCapture(Handle, &graph);
        if (graph != 0) CuDriver.cuGraphDestroy(graph);
    }
}
