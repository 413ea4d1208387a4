namespace ConvLLaVA.Cuda;

/// <summary>Settings of a product (<c>cublasLtMatmulDescAttributes_t</c>).</summary>
public enum CublasLtMatmulDescAttribute
{
    /// <summary>Precision of the arithmetic.</summary>
    ComputeType = 0,

    /// <summary>Type of alpha and beta.</summary>
    ScaleType = 1,

    /// <summary>Where alpha and beta are.</summary>
    PointerMode = 2,

    /// <summary>How A enters.</summary>
    TransA = 3,

    /// <summary>How B enters.</summary>
    TransB = 4,

    /// <summary>How C enters.</summary>
    TransC = 5,

    /// <summary>What is done to the product.</summary>
    Epilogue = 7,

    /// <summary>Device address of the bias, one value a row of D.</summary>
    BiasPointer = 8,

    /// <summary>Elements between the biases of a batch.</summary>
    BiasBatchStride = 10,

    /// <summary>Device address of the epilogue's second matrix.</summary>
    EpilogueAuxPointer = 11,

    /// <summary>Its leading dimension.</summary>
    EpilogueAuxLd = 12,

    /// <summary>Elements between those of a batch.</summary>
    EpilogueAuxBatchStride = 13,

    /// <summary>Multiprocessors to plan for.</summary>
    SmCountTarget = 15,

    /// <summary>Device address of the scale of A.</summary>
    AScalePointer = 17,

    /// <summary>Device address of the scale of B.</summary>
    BScalePointer = 18,

    /// <summary>Device address of the scale of C.</summary>
    CScalePointer = 19,

    /// <summary>Device address of the scale of D.</summary>
    DScalePointer = 20,

    /// <summary>Device address that receives the largest magnitude of D.</summary>
    AmaxDPointer = 21,

    /// <summary>Type of the epilogue's second matrix.</summary>
    EpilogueAuxDataType = 22,

    /// <summary>1 to accumulate fp8 faster and less exactly.</summary>
    FastAccum = 25,

    /// <summary>Type of the bias.</summary>
    BiasDataType = 26,

    /// <summary>What the scale of A covers.</summary>
    AScaleMode = 31,

    /// <summary>What the scale of B covers.</summary>
    BScaleMode = 32,
}

/// <summary>Settings of a matrix (<c>cublasLtMatrixLayoutAttribute_t</c>).</summary>
public enum CublasLtMatrixLayoutAttribute
{
    /// <summary>Type of the elements.</summary>
    Type = 0,

    /// <summary>Order of the elements.</summary>
    Order = 1,

    /// <summary>Rows.</summary>
    Rows = 2,

    /// <summary>Columns.</summary>
    Cols = 3,

    /// <summary>Elements between columns (or rows).</summary>
    Ld = 4,

    /// <summary>Matrices of a batch.</summary>
    BatchCount = 5,

    /// <summary>Elements between them.</summary>
    StridedBatchOffset = 6,

    /// <summary>Bytes between real and imaginary planes.</summary>
    PlaneOffset = 7,
}

/// <summary>Limits for the heuristic (<c>cublasLtMatmulPreferenceAttributes_t</c>).</summary>
public enum CublasLtMatmulPreferenceAttribute
{
    /// <summary>How to search.</summary>
    SearchMode = 0,

    /// <summary>Workspace there is.</summary>
    MaxWorkspaceBytes = 1,

    /// <summary>Which split-K reductions are allowed.</summary>
    ReductionSchemeMask = 3,

    /// <summary>Alignment of A.</summary>
    MinAlignmentABytes = 5,

    /// <summary>Alignment of B.</summary>
    MinAlignmentBBytes = 6,

    /// <summary>Alignment of C.</summary>
    MinAlignmentCBytes = 7,

    /// <summary>Alignment of D.</summary>
    MinAlignmentDBytes = 8,

    /// <summary>Most waves wanted.</summary>
    MaxWavesCount = 9,

    /// <summary>Which kinds of kernel are allowed.</summary>
    ImplMask = 12,
}

/// <summary>What can be asked about an algorithm (<c>cublasLtMatmulAlgoConfigAttributes_t</c>).</summary>
public enum CublasLtAlgoConfigAttribute
{
    /// <summary>Number of the algorithm.</summary>
    Id = 0,

    /// <summary>Tile.</summary>
    TileId = 1,

    /// <summary>Parts that K is split into.</summary>
    SplitkNum = 2,

    /// <summary>How the parts are added.</summary>
    ReductionScheme = 3,

    /// <summary>Order of the blocks.</summary>
    CtaSwizzling = 4,

    /// <summary>A choice within the algorithm.</summary>
    CustomOption = 5,

    /// <summary>Pipeline stages.</summary>
    StagesId = 6,

    /// <summary>Inner tile.</summary>
    InnerShapeId = 7,

    /// <summary>Cluster.</summary>
    ClusterShapeId = 8,
}
