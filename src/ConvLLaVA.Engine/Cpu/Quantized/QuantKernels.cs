using System.Runtime.Intrinsics;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>The kernels for quantised weights on one instruction set.</summary>
internal abstract class QuantKernels
{
    /// <summary>Units of work of a product.</summary>
    public abstract int Panels(CpuQuantLinear weight);

    /// <summary>Computes some of them; the input has been prepared.</summary>
    public abstract void Run(in QuantCall call, int first, int end);

    /// <summary>The kernels of <paramref name="path"/>, which must not be Auto.</summary>
    public static QuantKernels Create(CpuPath path) => path switch
    {
        CpuPath.Avx512 => new QuantKernels<Vector512<float>, Simd512, Vector512<int>, Integers512>(),
        CpuPath.Avx2 => new QuantKernels<Pair256, Simd256, IntegerPair256, Integers256>(),
        CpuPath.Vector128 => new QuantKernels<Quad128, Simd128, IntegerQuad128, Integers128>(),
        CpuPath.Scalar => new QuantKernels<Lanes16, SimdScalar, IntegerLanes16, IntegersScalar>(),
        _ => throw new ArgumentOutOfRangeException(nameof(path), path, null),
    };
}

/// <inheritdoc/>
internal sealed class QuantKernels<V, S, I, Q> : QuantKernels
    where V : struct where S : struct, ISimd<V> where I : struct where Q : struct, IIntegers<I, V>
{
    public override int Panels(CpuQuantLinear weight) => QuantGemm<V, S, I, Q>.Panels(weight);

    public override void Run(in QuantCall call, int first, int end) => QuantGemm<V, S, I, Q>.Run(call, first, end);
}
