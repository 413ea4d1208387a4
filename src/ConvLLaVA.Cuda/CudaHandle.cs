using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>Owns a handle of NVIDIA's libraries. Dispose gives it back at once, on the calling thread, from any thread. A handle that is
/// forgotten instead is handed to its owner's reclaim list, for a finalizer must not call the driver. What was created from a
/// context keeps it alive, so the order of disposal does not matter.</summary>
public abstract class CudaHandle : SafeHandle
{
    [ThreadStatic] private static bool _inFinalizer;

    private readonly HandleKind _kind;
    private CudaContext? _owner;
    private volatile bool _explicit;

    private protected CudaHandle(HandleKind kind) : base(0, ownsHandle: true) => _kind = kind;

    /// <inheritdoc/>
    public override bool IsInvalid => handle == 0;

    /// <summary>The raw handle, for calls while this object is referenced.</summary>
    /// <exception cref="ObjectDisposedException">It was given back.</exception>
    public nint Handle
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsDisposed, this);
            return handle;
        }
    }

    /// <summary>True after dispose, also while children keep the handle open (which <see cref="SafeHandle.IsClosed"/> does not tell).</summary>
    public bool IsDisposed => _explicit || IsClosed;

    /// <summary>The raw handle even after dispose, while children still hold it.</summary>
    internal nint RawHandle => handle;

    /// <summary>Takes ownership of <paramref name="raw"/>, which was created in <paramref name="owner"/> (null: in no context).</summary>
    private protected void Own(nint raw, CudaContext? owner)
    {
        if (owner is not null)
        {
            bool added = false;
            try
            {
                owner.DangerousAddRef(ref added);
            }
            finally
            {
                if (!added) GiveBack(owner, raw);
            }
            _owner = owner;
        }
        SetHandle(raw);
    }

    /// <summary>What the reclaim list is given: the handle, unless a class needs another value.</summary>
    private protected virtual nint GivenBack => handle;

    /// <summary>Where forgotten handles of this kind wait.</summary>
    private protected virtual ReclaimList Reclaim => _owner?.Reclaimed ?? ReclaimList.Host;

    /// <summary>The counter that this allocation is booked on, if any.</summary>
    private protected virtual MemoryCounter? Counter => null;

    /// <summary>Bytes that are booked on it.</summary>
    private protected virtual long CountedBytes => 0;

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing) _explicit = true;
        base.Dispose(disposing);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        bool outermost = !_inFinalizer;
        if (_explicit && !_inFinalizer)
        {
            GiveBack(_owner, GivenBack);
            Counter?.Freed(CountedBytes);
        }
        else
        {
            Reclaim.Add(_kind, GivenBack, Counter, CountedBytes);
            _inFinalizer = true; // the context may follow from here, and must not call the driver either
        }
        try
        {
            _owner?.DangerousRelease();
        }
        finally
        {
            if (outermost) _inFinalizer = false;
        }
        return true;
    }

    private void GiveBack(CudaContext? owner, nint raw)
    {
        if (owner is null)
        {
            ReclaimList.GiveBack(_kind, raw);
            return;
        }
        bool entered = owner.Enter();
        ReclaimList.GiveBack(_kind, raw);
        if (entered) CudaContext.Leave();
    }
}
