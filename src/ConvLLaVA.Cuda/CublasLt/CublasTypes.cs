namespace ConvLLaVA.Cuda;

/// <summary>What a call of cuBLASLt answers (<c>cublasStatus_t</c>).</summary>
public enum CublasStatus
{
    /// <summary>Done.</summary>
    Success = 0,

    /// <summary>There is no usable device, driver or context.</summary>
    NotInitialized = 1,

    /// <summary>Memory could not be allocated.</summary>
    AllocFailed = 3,

    /// <summary>A parameter is not valid.</summary>
    InvalidValue = 7,

    /// <summary>The device cannot do that.</summary>
    ArchMismatch = 8,

    /// <summary>Memory could not be mapped.</summary>
    MappingError = 11,

    /// <summary>A kernel failed.</summary>
    ExecutionFailed = 13,

    /// <summary>An error inside cuBLASLt.</summary>
    InternalError = 14,

    /// <summary>No implementation fits the types, layouts and sizes asked for.</summary>
    NotSupported = 15,

    /// <summary>A licence is missing.</summary>
    LicenseError = 16,
}

/// <summary>How a matrix enters a product (<c>cublasOperation_t</c>).</summary>
public enum CublasOperation
{
    /// <summary>As stored.</summary>
    N = 0,

    /// <summary>Transposed.</summary>
    T = 1,

    /// <summary>Conjugate transposed.</summary>
    C = 2,
}

/// <summary>Precision of the arithmetic (<c>cublasComputeType_t</c>).</summary>
public enum CublasComputeType
{
    /// <summary>fp16 accumulation.</summary>
    Compute16F = 64,

    /// <summary>fp32 accumulation, tensor cores for 16-bit inputs.</summary>
    Compute32F = 68,

    /// <summary>fp32 exactly as written.</summary>
    Compute32FPedantic = 69,

    /// <summary>fp32 inputs rounded to fp16.</summary>
    Compute32FFast16F = 74,

    /// <summary>fp32 inputs rounded to bf16.</summary>
    Compute32FFast16BF = 75,

    /// <summary>fp32 inputs rounded to tf32.</summary>
    Compute32FFastTf32 = 77,

    /// <summary>32-bit integers.</summary>
    Compute32I = 72,

    /// <summary>fp64.</summary>
    Compute64F = 70,
}

/// <summary>Type of the elements of a matrix or scale (<c>cudaDataType</c>).</summary>
public enum CudaDataType
{
    /// <summary>fp16.</summary>
    R16F = 2,

    /// <summary>bf16.</summary>
    R16BF = 14,

    /// <summary>fp32.</summary>
    R32F = 0,

    /// <summary>fp64.</summary>
    R64F = 1,

    /// <summary>8-bit integers.</summary>
    R8I = 3,

    /// <summary>unsigned 8-bit integers.</summary>
    R8U = 8,

    /// <summary>32-bit integers.</summary>
    R32I = 10,

    /// <summary>fp8 with 4 exponent bits.</summary>
    R8FE4M3 = 28,

    /// <summary>fp8 with 5 exponent bits.</summary>
    R8FE5M2 = 29,
}
