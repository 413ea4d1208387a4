using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>The primary context of a device, shared with every other CUDA library in the process. One thread at a time works with it: the
/// one that called <see cref="MakeCurrent"/>. Objects are created on that thread and may be disposed on any.</summary>
public sealed unsafe class CudaContext : CudaHandle
{
    /// <summary>Retains the primary context of <paramref name="device"/> and makes it current on this thread.</summary>
    /// <param name="device">The device.</param>
    /// <param name="flags">How threads wait for the device; applied when the context is not in use yet.</param>
    /// <exception cref="CudaException">The context cannot be created.</exception>
    public CudaContext(CudaDevice device, CuContextFlags flags = CuContextFlags.SchedAuto) : base(HandleKind.PrimaryContext)
    {
        Device = device;
        Reclaimed = ReclaimList.OfDevice(device.Ordinal);
        if (flags != CuContextFlags.SchedAuto) Check.Ok(CuDriver.cuDevicePrimaryCtxSetFlags_v2(device.Handle, flags));
        nint context;
        Check.Ok(CuDriver.cuDevicePrimaryCtxRetain(&context, device.Handle));
        SetHandle(context);
        MakeCurrent();
        DrainReclaimed();
    }

    /// <summary>The device.</summary>
    public CudaDevice Device { get; }

    /// <summary>Device memory allocated through this context.</summary>
    public MemoryCounter DeviceMemory { get; } = new();

    /// <summary>Page-locked host memory allocated or registered through this context.</summary>
    public MemoryCounter PinnedMemory { get; } = new();

    /// <summary>Objects of this device that were ever left to the garbage collector instead of being disposed.</summary>
    public int ForgottenHandles => Reclaimed.Total;

    /// <summary>Free and total bytes of the device, as the driver counts them; the context must be current.</summary>
    public (long Free, long Total) MemoryInfo
    {
        get
        {
            nuint free, total;
            Check.Ok(CuDriver.cuMemGetInfo_v2(&free, &total));
            return ((long)free, (long)total);
        }
    }

    /// <summary>Handles that finalizers left for this device.</summary>
    internal ReclaimList Reclaimed { get; }

    private protected override nint GivenBack => Device.Handle;

    private protected override ReclaimList Reclaim => Reclaimed;

    /// <summary>Makes the context current on the calling thread; all work is done there.</summary>
    public void MakeCurrent() => Check.Ok(CuDriver.cuCtxSetCurrent(Handle));

    /// <summary>Waits for all work of the context, which must be current.</summary>
    public void Synchronize() => Check.Ok(CuDriver.cuCtxSynchronize());

    /// <summary>Gives back what was forgotten, on the calling thread with the context current; the thread that owns the device calls
    /// this between its steps, never during a capture. Returns the number of handles.</summary>
    public int DrainReclaimed() => Reclaimed.Waiting == 0 ? 0 : Reclaimed.Drain();

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && !IsDisposed && !IsInvalid)
        {
            bool entered = Enter();
            DrainReclaimed();
            if (entered) Leave();
            LeaveThread();
        }
        base.Dispose(disposing);
    }

    /// <summary>Makes the context current on this thread if it is not; true when <see cref="Leave"/> must follow.</summary>
    internal bool Enter()
    {
        nint current;
        if (CuDriver.cuCtxGetCurrent(&current) == CuResult.Success && current == RawHandle) return false;
        return CuDriver.cuCtxPushCurrent_v2(RawHandle) == CuResult.Success;
    }

    /// <summary>Undoes <see cref="Enter"/>.</summary>
    internal static void Leave()
    {
        nint context;
        CuDriver.cuCtxPopCurrent_v2(&context);
    }

    /// <summary>A released primary context must not stay current on the thread that releases it, if that has it.</summary>
    private void LeaveThread()
    {
        nint current;
        if (CuDriver.cuCtxGetCurrent(&current) == CuResult.Success && current == RawHandle) CuDriver.cuCtxSetCurrent(0);
    }
}
