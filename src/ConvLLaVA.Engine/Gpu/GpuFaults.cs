using ConvLLaVA.Cuda;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Turns errors of NVIDIA's libraries into the engine's, and remembers the one that broke the device: from then on every
/// call fails with the same sentence.</summary>
internal sealed class GpuFaults(string device)
{
    private ConvLlavaException? _fault;

    /// <summary>What broke the device, or null.</summary>
    public ConvLlavaException? Fault => Volatile.Read(ref _fault);

    /// <summary>Refuses further work on a broken device.</summary>
    public void ThrowIfFaulted()
    {
        if (Fault is { } fault) throw fault;
    }

    /// <summary>The engine's error for <paramref name="error"/>.</summary>
    /// <param name="error">What a library answered.</param>
    /// <param name="stream">Asked, after an error of cuBLASLt, whether the device is still well.</param>
    public ConvLlavaException Translate(CudaException error, CudaStream? stream = null)
    {
        if (Fault is { } earlier) return earlier;
        CudaException cause = error;
        if (error.CublasResult is CublasStatus.ExecutionFailed or CublasStatus.InternalError && stream is not null) cause = StickyErrorOf(stream) ?? error;
        if (!cause.IsSticky) return new ConvLlavaException($"{device}: {error.Message}", error);
        var fault = new ConvLlavaException($"{device} failed and cannot go on, so every request ends with this error; start the program anew: {cause.Message}", cause);
        return Interlocked.CompareExchange(ref _fault, fault, null) ?? fault;
    }

    private static CudaException? StickyErrorOf(CudaStream stream)
    {
        try
        {
            _ = stream.IsIdle;
            return null;
        }
        catch (CudaException error)
        {
            return error.IsSticky ? error : null;
        }
    }
}
