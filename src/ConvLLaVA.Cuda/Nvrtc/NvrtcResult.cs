namespace ConvLLaVA.Cuda;

/// <summary>What a call of NVRTC answers (<c>nvrtcResult</c>).</summary>
public enum NvrtcResult
{
    /// <summary>Done.</summary>
    Success = 0,

    /// <summary>Out of host memory.</summary>
    OutOfMemory = 1,

    /// <summary>The program could not be created.</summary>
    ProgramCreationFailure = 2,

    /// <summary>A parameter is not valid.</summary>
    InvalidInput = 3,

    /// <summary>The program handle is not valid.</summary>
    InvalidProgram = 4,

    /// <summary>An option is not known.</summary>
    InvalidOption = 5,

    /// <summary>The source has errors; the log says which.</summary>
    Compilation = 6,

    /// <summary>The builtins library is missing or broken.</summary>
    BuiltinOperationFailure = 7,

    /// <summary>Names must be added before compiling.</summary>
    NoNameExpressionsAfterCompilation = 8,

    /// <summary>Names are known only after compiling.</summary>
    NoLoweredNamesBeforeCompilation = 9,

    /// <summary>The name is not valid.</summary>
    NameExpressionNotValid = 10,

    /// <summary>An error inside NVRTC.</summary>
    InternalError = 11,

    /// <summary>The timing file could not be written.</summary>
    TimeFileWriteFailed = 12,

    /// <summary>The compilation was cancelled.</summary>
    Cancelled = 16,
}
