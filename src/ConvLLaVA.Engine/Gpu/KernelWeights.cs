using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>How kernels are told the form of a matrix of weights: their constant WEIGHTS.</summary>
internal static class KernelWeights
{
    /// <summary>As the storage type.</summary>
    public const int Stored = 0;

    /// <summary>The constant of a format. int8 is q8-row once its scales are divided by 127: activations stay floats on the GPU, so that large
    /// ones need no treatment of their own.</summary>
    public static int Of(QuantFormat format) => format switch
    {
        QuantFormat.Q8 => 1,
        QuantFormat.Q8Row or QuantFormat.Int8 => 2,
        QuantFormat.Q4 => 3,
        QuantFormat.Q4Group128 => 4,
        QuantFormat.Fp8 => 5,
        QuantFormat.Nf4 => 6,
        _ => throw new ArgumentOutOfRangeException(nameof(format), format, null),
    };
}
