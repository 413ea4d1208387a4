using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>cuBLASLt as exported by CUDA 12 and 13.</summary>
internal static unsafe partial class CublasLtApi
{
    private const string Library = CudaLibraries.CublasLtName;

    [LibraryImport(Library)] public static partial CublasStatus cublasLtCreate(nint* handle);
    [LibraryImport(Library)] public static partial CublasStatus cublasLtDestroy(nint handle);
    [LibraryImport(Library)] public static partial nuint cublasLtGetVersion();
    [LibraryImport(Library)] public static partial byte* cublasLtGetStatusString(CublasStatus status);

    [LibraryImport(Library)] public static partial CublasStatus cublasLtMatmulDescCreate(nint* descriptor, CublasComputeType compute, CudaDataType scale);
    [LibraryImport(Library)] public static partial CublasStatus cublasLtMatmulDescDestroy(nint descriptor);
    [LibraryImport(Library)]
    public static partial CublasStatus cublasLtMatmulDescSetAttribute(nint descriptor, CublasLtMatmulDescAttribute attribute, void* value, nuint size);

    [LibraryImport(Library)]
    public static partial CublasStatus cublasLtMatmulDescGetAttribute(nint descriptor, CublasLtMatmulDescAttribute attribute, void* value, nuint size, nuint* written);

    [LibraryImport(Library)] public static partial CublasStatus cublasLtMatrixLayoutCreate(nint* layout, CudaDataType type, ulong rows, ulong columns, long leadingDimension);
    [LibraryImport(Library)] public static partial CublasStatus cublasLtMatrixLayoutDestroy(nint layout);
    [LibraryImport(Library)]
    public static partial CublasStatus cublasLtMatrixLayoutSetAttribute(nint layout, CublasLtMatrixLayoutAttribute attribute, void* value, nuint size);

    [LibraryImport(Library)] public static partial CublasStatus cublasLtMatmulPreferenceCreate(nint* preference);
    [LibraryImport(Library)] public static partial CublasStatus cublasLtMatmulPreferenceDestroy(nint preference);
    [LibraryImport(Library)]
    public static partial CublasStatus cublasLtMatmulPreferenceSetAttribute(nint preference, CublasLtMatmulPreferenceAttribute attribute, void* value, nuint size);

    [LibraryImport(Library)]
    public static partial CublasStatus cublasLtMatmulAlgoGetHeuristic(nint handle, nint descriptor, nint a, nint b, nint c, nint d, nint preference,
        int requested, CublasLtMatmulHeuristicResult* results, int* returned);

    [LibraryImport(Library)]
    public static partial CublasStatus cublasLtMatmulAlgoCheck(nint handle, nint descriptor, nint a, nint b, nint c, nint d,
        CublasLtMatmulAlgo* algorithm, CublasLtMatmulHeuristicResult* result);

    [LibraryImport(Library)]
    public static partial CublasStatus cublasLtMatmulAlgoConfigGetAttribute(CublasLtMatmulAlgo* algorithm, CublasLtAlgoConfigAttribute attribute, void* value, nuint size, nuint* written);

    [LibraryImport(Library)]
    public static partial CublasStatus cublasLtMatmul(nint handle, nint descriptor, void* alpha, void* a, nint aLayout, void* b, nint bLayout,
        void* beta, void* c, nint cLayout, void* d, nint dLayout, CublasLtMatmulAlgo* algorithm, void* workspace, nuint workspaceBytes, nint stream);
}
