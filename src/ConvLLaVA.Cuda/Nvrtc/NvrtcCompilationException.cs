namespace ConvLLaVA.Cuda;

/// <summary>A kernel source did not compile. The message holds NVRTC's log, which names file and line.</summary>
public sealed class NvrtcCompilationException : CudaException
{
    internal NvrtcCompilationException(string source, string log, CudaException cause)
        : base($"{source} did not compile ({cause.ResultName}){(log.Length == 0 ? "." : ":\n" + log)}", cause)
    {
        SourceName = source;
        Log = log;
        CompilerResult = cause.CompilerResult;
    }

    /// <summary>Name of the file that was compiled.</summary>
    public string SourceName { get; }

    /// <summary>NVRTC's log.</summary>
    public string Log { get; }
}
