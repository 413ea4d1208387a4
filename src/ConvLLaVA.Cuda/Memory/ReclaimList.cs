using System.Collections.Concurrent;

namespace ConvLLaVA.Cuda;

/// <summary>What kind of thing a raw handle stands for, and so how it is given back.</summary>
internal enum HandleKind
{
    /// <summary>A retained primary context; the handle is the device.</summary>
    PrimaryContext,
    Module,
    Stream,
    Event,
    Graph,
    GraphExec,
    DeviceMemory,
    PinnedMemory,
    RegisteredMemory,
    CublasLt,
    MatmulDescriptor,
    MatrixLayout,
    MatmulPreference,
    NvrtcProgram,
}

/// <summary>Handles whose owners were forgotten. A finalizer runs on a thread that has no context, possibly during a capture, so
/// it calls nothing: it puts the handle here, and the next owner of the same device gives it back on its own thread.</summary>
internal sealed class ReclaimList
{
    private static readonly ConcurrentDictionary<int, ReclaimList> Devices = new();
    private readonly ConcurrentQueue<(HandleKind Kind, nint Handle, MemoryCounter? Counter, long Bytes)> _queue = new();
    private int _total;

    /// <summary>The list for handles that belong to no device: descriptors and programs.</summary>
    public static ReclaimList Host { get; } = new();

    /// <summary>The list of device <paramref name="ordinal"/>.</summary>
    public static ReclaimList OfDevice(int ordinal) => Devices.GetOrAdd(ordinal, static _ => new ReclaimList());

    /// <summary>Handles that wait.</summary>
    public int Waiting => _queue.Count;

    /// <summary>Handles that were ever forgotten.</summary>
    public int Total => Volatile.Read(ref _total);

    /// <summary>Takes a handle from a finalizer.</summary>
    public void Add(HandleKind kind, nint handle, MemoryCounter? counter, long bytes)
    {
        Interlocked.Increment(ref _total);
        _queue.Enqueue((kind, handle, counter, bytes));
    }

    /// <summary>Gives back all that waits, with the device's context current on this thread; returns how many there were.
    /// Contexts go last, so that what lives in them is still valid.</summary>
    public int Drain()
    {
        int count = 0;
        List<nint>? contexts = null;
        while (_queue.TryDequeue(out var waiting))
        {
            count++;
            if (waiting.Kind == HandleKind.PrimaryContext)
            {
                (contexts ??= []).Add(waiting.Handle);
                continue;
            }
            GiveBack(waiting.Kind, waiting.Handle);
            waiting.Counter?.Freed(waiting.Bytes);
        }
        foreach (nint device in contexts ?? []) GiveBack(HandleKind.PrimaryContext, device);
        return count;
    }

    /// <summary>Gives one handle back. Failures are not reported: after a sticky error every such call fails, and there is nothing
    /// left to do about it.</summary>
    public static unsafe void GiveBack(HandleKind kind, nint handle)
    {
        switch (kind)
        {
            case HandleKind.PrimaryContext: CuDriver.cuDevicePrimaryCtxRelease_v2((int)handle); break;
            case HandleKind.Module: CuDriver.cuModuleUnload(handle); break;
            case HandleKind.Stream: CuDriver.cuStreamDestroy_v2(handle); break;
            case HandleKind.Event: CuDriver.cuEventDestroy_v2(handle); break;
            case HandleKind.Graph: CuDriver.cuGraphDestroy(handle); break;
            case HandleKind.GraphExec: CuDriver.cuGraphExecDestroy(handle); break;
            case HandleKind.DeviceMemory: CuDriver.cuMemFree_v2((ulong)handle); break;
            case HandleKind.PinnedMemory: CuDriver.cuMemFreeHost((void*)handle); break;
            case HandleKind.RegisteredMemory: CuDriver.cuMemHostUnregister((void*)handle); break;
            case HandleKind.CublasLt: CublasLtApi.cublasLtDestroy(handle); break;
            case HandleKind.MatmulDescriptor: CublasLtApi.cublasLtMatmulDescDestroy(handle); break;
            case HandleKind.MatrixLayout: CublasLtApi.cublasLtMatrixLayoutDestroy(handle); break;
            case HandleKind.MatmulPreference: CublasLtApi.cublasLtMatmulPreferenceDestroy(handle); break;
            case HandleKind.NvrtcProgram: NvrtcApi.nvrtcDestroyProgram(&handle); break;
            default: throw new ArgumentOutOfRangeException(nameof(kind));
        }
    }
}
