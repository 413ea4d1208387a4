namespace ConvLLaVA.Cuda;

/// <summary>A point in a stream's work.</summary>
public sealed unsafe class CudaEvent : CudaHandle
{
    /// <summary>Creates an event.</summary>
    /// <param name="context">The context, current on this thread.</param>
    /// <param name="timing">Whether it carries a time stamp, which costs a little.</param>
    /// <param name="blocking">Whether waiting for it sleeps rather than spins.</param>
    public CudaEvent(CudaContext context, bool timing = false, bool blocking = false) : base(HandleKind.Event)
    {
        ObjectDisposedException.ThrowIf(context.IsDisposed, context);
        nint created;
        CuEventFlags flags = (timing ? CuEventFlags.Default : CuEventFlags.DisableTiming) | (blocking ? CuEventFlags.BlockingSync : CuEventFlags.Default);
        Check.Ok(CuDriver.cuEventCreate(&created, flags));
        Own(created, context);
    }

    /// <summary>True when the work recorded has finished.</summary>
    public bool HasHappened
    {
        get
        {
            CuResult result = CuDriver.cuEventQuery(Handle);
            if (result == CuResult.NotReady) return false;
            Check.Ok(result, nameof(CuDriver.cuEventQuery));
            return true;
        }
    }

    /// <summary>Marks the present end of <paramref name="stream"/>.</summary>
    public void Record(CudaStream stream) => Check.Ok(CuDriver.cuEventRecord(Handle, stream.Handle));

    /// <summary>Waits on the calling thread until the work has finished.</summary>
    public void Synchronize() => Check.Ok(CuDriver.cuEventSynchronize(Handle));

    /// <summary>Milliseconds from <paramref name="start"/> to this event, both with timing and both happened.</summary>
    public float MillisecondsSince(CudaEvent start)
    {
        float milliseconds;
        Check.Ok(CuDriver.cuEventElapsedTime(&milliseconds, start.Handle, Handle));
        return milliseconds;
    }
}
