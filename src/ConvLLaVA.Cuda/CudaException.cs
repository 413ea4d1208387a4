namespace ConvLLaVA.Cuda;

/// <summary>A call of the driver, NVRTC or cuBLASLt failed. The message names the call, the error by name and number, and what
/// the library says about it.</summary>
public class CudaException : Exception
{
    /// <summary>Creates the error of a call.</summary>
    /// <param name="call">Name of the call, e.g. <c>cuMemAlloc_v2</c>.</param>
    /// <param name="resultName">NVIDIA's name of the error, e.g. <c>CUDA_ERROR_OUT_OF_MEMORY</c>.</param>
    /// <param name="resultCode">Its number.</param>
    /// <param name="description">What the library says about it.</param>
    public CudaException(string call, string resultName, int resultCode, string description)
        : base($"{call} failed with {resultName} ({resultCode}){(description.Length == 0 ? "" : $": {description.TrimEnd('.')}")}.")
    {
        Call = call;
        ResultName = resultName;
        ResultCode = resultCode;
        Description = description;
    }

    /// <summary>Creates an error that is not the answer of a call.</summary>
    protected CudaException(string message, Exception? innerException = null) : base(message, innerException)
    {
        Call = ResultName = Description = "";
    }

    /// <summary>The call that failed; empty when no call did.</summary>
    public string Call { get; }

    /// <summary>NVIDIA's name of the error.</summary>
    public string ResultName { get; }

    /// <summary>Number of the error within its library.</summary>
    public int ResultCode { get; }

    /// <summary>The library's own text.</summary>
    public string Description { get; }

    /// <summary>The driver's answer; null when another library failed.</summary>
    public CuResult? DriverResult { get; init; }

    /// <summary>cuBLASLt's answer; null when another library failed.</summary>
    public CublasStatus? CublasResult { get; init; }

    /// <summary>NVRTC's answer; null when another library failed.</summary>
    public NvrtcResult? CompilerResult { get; init; }

    /// <summary>True when the context is dead: every later call on it fails, and only a new process is sure to work.</summary>
    public bool IsSticky => DriverResult is { } result && IsStickyResult(result);

    /// <summary>True when memory ran out, on the device or of page-locked host memory.</summary>
    public bool IsOutOfMemory => DriverResult == CuResult.OutOfMemory || CublasResult == CublasStatus.AllocFailed;

    /// <summary>True for the answers after which a context is dead.</summary>
    public static bool IsStickyResult(CuResult result) => result is
        CuResult.Deinitialized or CuResult.EccUncorrectable or CuResult.NvlinkUncorrectable or CuResult.Contained or
        CuResult.IllegalAddress or CuResult.LaunchTimeout or CuResult.ContextIsDestroyed or CuResult.Assert or
        CuResult.HardwareStackError or CuResult.IllegalInstruction or CuResult.MisalignedAddress or
        CuResult.InvalidAddressSpace or CuResult.InvalidPc or CuResult.LaunchFailed or CuResult.TensorMemoryLeak or
        CuResult.MpsClientTerminated or CuResult.ExternalDevice;
}
