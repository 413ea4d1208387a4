using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>Machine code or PTX that the driver has loaded into a context.</summary>
public sealed unsafe class CudaModule : CudaHandle
{
    private const int LogBytes = 8192;

    /// <summary>Loads <paramref name="image"/>: a CUBIN, or PTX text.</summary>
    /// <exception cref="CudaException">The image does not fit the device or the driver; the driver's log is in the message.</exception>
    public CudaModule(CudaContext context, ReadOnlySpan<byte> image) : base(HandleKind.Module)
    {
        Context = context;
        ObjectDisposedException.ThrowIf(context.IsDisposed, context);
        nint module;
        byte* copy = (byte*)NativeMemory.Alloc((nuint)image.Length + 1);
        byte* log = stackalloc byte[LogBytes];
        log[0] = 0;
        try
        {
            // PTX is text and the driver looks for its end.
            image.CopyTo(new Span<byte>(copy, image.Length));
            copy[image.Length] = 0;
            CuJitOption* options = stackalloc CuJitOption[2] { CuJitOption.ErrorLogBuffer, CuJitOption.ErrorLogBufferSizeBytes };
            void** values = stackalloc void*[2];
            values[0] = log;
            values[1] = (void*)LogBytes;
            CuResult result = CuDriver.cuModuleLoadDataEx(&module, copy, 2, options, values);
            if (result != CuResult.Success) throw LoadError(result, Check.Text(log) ?? "");
        }
        finally
        {
            NativeMemory.Free(copy);
        }
        Own(module, context);
    }

    /// <summary>The context it is loaded into.</summary>
    public CudaContext Context { get; }

    /// <summary>The kernel called <paramref name="name"/>.</summary>
    /// <exception cref="CudaException">There is none.</exception>
    public CudaFunction GetFunction(string name)
    {
        using var text = new Utf8Array(name);
        nint function;
        CuResult result = CuDriver.cuModuleGetFunction(&function, Handle, text.First);
        if (result != CuResult.Success)
        {
            CudaException error = Check.Error(result, nameof(CuDriver.cuModuleGetFunction));
            throw new CudaException(error.Call, error.ResultName, error.ResultCode, $"{error.Description} (kernel {name})") { DriverResult = result };
        }
        return new CudaFunction(this, name, function);
    }

    /// <summary>Address and size of the global variable called <paramref name="name"/>.</summary>
    /// <exception cref="CudaException">There is none.</exception>
    public (ulong Address, long Bytes) GetGlobal(string name)
    {
        using var text = new Utf8Array(name);
        ulong address;
        nuint bytes;
        Check.Ok(CuDriver.cuModuleGetGlobal_v2(&address, &bytes, Handle, text.First));
        return (address, (long)bytes);
    }

    private static CudaException LoadError(CuResult result, string log)
    {
        CudaException error = Check.Error(result, nameof(CuDriver.cuModuleLoadDataEx));
        string text = string.IsNullOrWhiteSpace(log) ? error.Description : $"{error.Description}; the driver's log: {log.Trim()}";
        return new CudaException(error.Call, error.ResultName, error.ResultCode, text) { DriverResult = result };
    }
}
