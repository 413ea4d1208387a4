using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>What cuBLASLt is told of a product y [m, n] = x [m, k] W^T: everything that needs no device.</summary>
/// <param name="Descriptor">The arithmetic and what follows it.</param>
/// <param name="Weight">W [n, k] as the first matrix, entering transposed.</param>
/// <param name="Input">x as the second.</param>
/// <param name="Output">y.</param>
/// <param name="Preference">Limits of the choice.</param>
internal sealed record GemmParts(MatmulDescriptor Descriptor, MatrixLayout Weight, MatrixLayout Input, MatrixLayout Output, MatmulPreference Preference)
{
    /// <summary>Describes a product.</summary>
    /// <exception cref="CudaException">cuBLASLt refuses part of the description.</exception>
    public static GemmParts Of(CudaDataType type, int m, int n, int k, GemmKind kind, long workspaceBytes, int stride = 0)
    {
        // fp32 accumulation; with fp32 matrices this is also exact fp32 arithmetic, never tf32.
        var descriptor = new MatmulDescriptor(CublasComputeType.Compute32F, CudaDataType.R32F)
        {
            TransA = CublasOperation.T,
            TransB = CublasOperation.N,
        };
        CudaDataType output = (kind & GemmKind.FloatOutput) != 0 ? CudaDataType.R32F : type;
        bool bias = (kind & GemmKind.Bias) != 0, gelu = (kind & GemmKind.TanhGelu) != 0;
        if (bias || gelu) descriptor.Epilogue = !gelu ? CublasLtEpilogue.Bias : bias ? CublasLtEpilogue.GeluBias : CublasLtEpilogue.Gelu;
        if (bias) descriptor.BiasType = output;
        var preference = new MatmulPreference(workspaceBytes)
        {
            // Parts of a split product are added in fp32: in fp16 they could overflow, and in place their order would not be fixed.
            ReductionSchemes = CublasLtReductionScheme.ComputeType,
        };
        return new GemmParts(descriptor, new MatrixLayout(type, k, n, k), new MatrixLayout(type, k, m, k), new MatrixLayout(output, n, m, stride == 0 ? n : stride), preference);
    }

    /// <summary>cuBLASLt's name of a storage type.</summary>
    public static CudaDataType TypeOf(DType type) => type switch
    {
        DType.Float16 => CudaDataType.R16F,
        DType.BFloat16 => CudaDataType.R16BF,
        _ => CudaDataType.R32F,
    };
}
