using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>A way to compute one product, chosen by cuBLASLt; opaque (<c>cublasLtMatmulAlgo_t</c>).</summary>
[StructLayout(LayoutKind.Sequential)]
public struct CublasLtMatmulAlgo
{
    private Words _data;

    [InlineArray(8)]
    private struct Words
    {
        private ulong _first;
    }
}

/// <summary>One answer of cuBLASLt's heuristic (<c>cublasLtMatmulHeuristicResult_t</c>), best first.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct CublasLtMatmulHeuristicResult
{
    /// <summary>The algorithm, valid when <see cref="State"/> is success.</summary>
    public CublasLtMatmulAlgo Algo;

    /// <summary>Bytes of workspace it needs.</summary>
    public nuint WorkspaceSize;

    /// <summary>Whether the algorithm can be used.</summary>
    public CublasStatus State;

    /// <summary>How many times the device is filled with blocks; 1 is a full device.</summary>
    public float WavesCount;

    private Reserved4 _reserved;

    [InlineArray(4)]
    private struct Reserved4
    {
        private int _first;
    }
}
