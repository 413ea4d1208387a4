namespace ConvLLaVA.Cuda;

/// <summary>What is done to a product before it is stored (<c>cublasLtEpilogue_t</c>).</summary>
public enum CublasLtEpilogue
{
    /// <summary>Nothing.</summary>
    Default = 1,

    /// <summary>max(0, x).</summary>
    Relu = 2,

    /// <summary>Bias added, one value a row of D.</summary>
    Bias = 4,

    /// <summary>Bias, then max(0, x).</summary>
    ReluBias = 6,

    /// <summary>GELU in its tanh form.</summary>
    Gelu = 32,

    /// <summary>GELU, and its input kept.</summary>
    GeluAux = 160,

    /// <summary>Bias, then GELU in its tanh form.</summary>
    GeluBias = 36,

    /// <summary>Bias, then GELU, and its input kept.</summary>
    GeluAuxBias = 164,
}

/// <summary>Order of a matrix's elements (<c>cublasLtOrder_t</c>).</summary>
public enum CublasLtOrder
{
    /// <summary>Column by column.</summary>
    Col = 0,

    /// <summary>Row by row.</summary>
    Row = 1,
}

/// <summary>Where alpha and beta are (<c>cublasLtPointerMode_t</c>).</summary>
public enum CublasLtPointerMode
{
    /// <summary>On the host.</summary>
    Host = 0,

    /// <summary>On the device.</summary>
    Device = 1,

    /// <summary>On the device, one a row.</summary>
    DeviceVector = 2,

    /// <summary>Alpha on the device, one a row; beta is zero.</summary>
    AlphaDeviceVectorBetaZero = 3,

    /// <summary>Alpha on the device, one a row; beta on the host.</summary>
    AlphaDeviceVectorBetaHost = 4,
}

/// <summary>How the parts of a split-K product are added (<c>cublasLtReductionScheme_t</c>).</summary>
public enum CublasLtReductionScheme
{
    /// <summary>No split-K.</summary>
    None = 0,

    /// <summary>In place, with atomic additions in no fixed order.</summary>
    Inplace = 1,

    /// <summary>Through the workspace, in the compute type.</summary>
    ComputeType = 2,

    /// <summary>Through the workspace, in the output's type.</summary>
    OutputType = 4,

    /// <summary>All of them.</summary>
    Mask = 7,
}

/// <summary>What a scale covers (<c>cublasLtMatmulMatrixScale_t</c>).</summary>
public enum CublasLtMatmulMatrixScale
{
    /// <summary>One fp32 for the matrix.</summary>
    Scalar32F = 0,

    /// <summary>One fp32 a row or column.</summary>
    OuterVec32F = 3,
}
