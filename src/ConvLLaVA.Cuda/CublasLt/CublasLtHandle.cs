namespace ConvLLaVA.Cuda;

/// <summary>cuBLASLt in a context. It holds no stream and no workspace: both come with each product.</summary>
public sealed unsafe class CublasLtHandle : CudaHandle
{
    /// <summary>Creates the handle; the context must be current.</summary>
    /// <exception cref="CudaLibraryNotFoundException">cuBLASLt is not installed.</exception>
    /// <exception cref="CudaException">cuBLASLt cannot use the device.</exception>
    public CublasLtHandle(CudaContext context) : base(HandleKind.CublasLt)
    {
        ObjectDisposedException.ThrowIf(context.IsDisposed, context);
        Context = context;
        nint created;
        Check.Ok(CublasLtApi.cublasLtCreate(&created));
        Own(created, context);
    }

    /// <summary>The context.</summary>
    public CudaContext Context { get; }

    /// <summary>Creates a handle and lets go of it: whether cuBLASLt can be used as things are.</summary>
    /// <exception cref="CudaLibraryNotFoundException">cuBLASLt is not installed.</exception>
    /// <exception cref="CudaException">It cannot; without a device it answers <c>CUBLAS_STATUS_NOT_INITIALIZED</c>.</exception>
    public static void Try()
    {
        nint created;
        Check.Ok(CublasLtApi.cublasLtCreate(&created));
        Check.Ok(CublasLtApi.cublasLtDestroy(created));
    }

    /// <summary>Version of the library; needs no device.</summary>
    /// <exception cref="CudaLibraryNotFoundException">cuBLASLt is not installed.</exception>
    public static Version Version
    {
        get
        {
            // 120905 is 12.9.5 and 130100 is 13.1.0.
            int version = (int)CublasLtApi.cublasLtGetVersion();
            return new Version(version / 10000, version / 100 % 100, version % 100);
        }
    }
}
