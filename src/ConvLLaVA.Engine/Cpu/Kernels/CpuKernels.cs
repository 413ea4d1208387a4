using System.Runtime.Intrinsics;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>The kernels of one instruction set behind virtual calls, one a row or product and so not counting.</summary>
internal abstract unsafe class CpuKernels
{
    /// <summary>Floats of scratch memory a worker needs for anything but attention.</summary>
    public abstract int ScratchFloats(GemmBlocks blocks);

    public abstract void Gemm(WorkerPool pool, Scratch scratch, GemmCall call);

    public abstract void LayerNorm(float* input, int count, float* weight, float* bias, float epsilon, float* output);

    public abstract void RmsNorm(float* input, int count, float* weight, float epsilon, float* output);

    public abstract void SiluMultiply(float* gate, float* up, int count);

    /// <summary>Rotates the pairs (i, i + head_dim / 2) of one head. head [head_dim], table as from <see cref="RopeTable.Of"/>.</summary>
    public abstract void Rotate(float* head, float* table, int headDim);

    /// <summary>output[4 i + k] = rows[k, i]. rows [4, count], output [4 * count]</summary>
    public abstract void Interleave4(float* rows, int count, float* output);

    public abstract int DepthwiseRows { get; }

    public abstract int DepthwiseWidth { get; }

    public abstract void DepthwiseSegment(in DepthwiseCall call, int y0, int rows, int x0, float* scratch);

    public abstract int QueryTile { get; }

    public abstract int AttentionScratchFloats(int headDim, int blockSize);

    public abstract void Attention(float* query, float* output, nint stride, int count, ReadOnlySpan<int> positions, ReadOnlySpan<int> blocks,
        KvPages kv, int layer, int kvHead, float* scratch);

    /// <summary>Floating-point operations of one round of <see cref="MultiplyAdds"/>.</summary>
    public abstract int FlopsPerRound { get; }

    /// <summary>Fused multiply-adds in registers, to measure how many there can be.</summary>
    public abstract float MultiplyAdds(long rounds);

    /// <summary>Reads memory in order, to measure how fast that can be; count is a multiple of 128.</summary>
    public abstract float ReadAll(float* data, nint count);

    /// <summary>Applies one elementary function, for tests: 0 exp, 1 GELU, 2 SiLU. Both [count].</summary>
    public abstract void Apply(int function, float* input, float* output, int count);

    /// <summary>Widens stored elements. Both [count].</summary>
    public abstract void Widen(nint input, DType type, float* output, int count);

    /// <summary>The kernels of <paramref name="path"/>, which must not be Auto.</summary>
    public static CpuKernels Create(CpuPath path) => path switch
    {
        CpuPath.Avx512 => new CpuKernels<Vector512<float>, Simd512>(),
        CpuPath.Avx2 => new CpuKernels<Pair256, Simd256>(),
        CpuPath.Vector128 => new CpuKernels<Quad128, Simd128>(),
        CpuPath.Scalar => new CpuKernels<Lanes16, SimdScalar>(),
        _ => throw new ArgumentOutOfRangeException(nameof(path), path, null),
    };
}

/// <inheritdoc/>
internal sealed unsafe class CpuKernels<V, S> : CpuKernels where V : struct where S : struct, ISimd<V>
{
    public override int ScratchFloats(GemmBlocks blocks) => Math.Max(Gemm<V, S>.ScratchFloats(blocks), Depthwise<V, S>.ScratchFloats);

    public override void Gemm(WorkerPool pool, Scratch scratch, GemmCall call) => Gemm<V, S>.Run(pool, scratch, call);

    public override void LayerNorm(float* input, int count, float* weight, float* bias, float epsilon, float* output)
        => Norms<V, S>.LayerNorm(input, count, weight, bias, epsilon, output);

    public override void RmsNorm(float* input, int count, float* weight, float epsilon, float* output)
        => Norms<V, S>.RmsNorm(input, count, weight, epsilon, output);

    public override void SiluMultiply(float* gate, float* up, int count) => Norms<V, S>.SiluMultiply(gate, up, count);

    public override void Rotate(float* head, float* table, int headDim) => Moves<V, S>.Rotate(head, table, headDim);

    public override void Interleave4(float* rows, int count, float* output) => Moves<V, S>.Interleave4(rows, count, output);

    public override int DepthwiseRows => Depthwise<V, S>.MostRows;

    public override int DepthwiseWidth => Depthwise<V, S>.SegmentWidth;

    public override void DepthwiseSegment(in DepthwiseCall call, int y0, int rows, int x0, float* scratch)
        => Depthwise<V, S>.Segment(call, y0, rows, x0, scratch);

    public override int QueryTile => Attention<V, S>.QueryTile;

    public override int AttentionScratchFloats(int headDim, int blockSize) => Attention<V, S>.ScratchFloats(headDim, blockSize);

    public override void Attention(float* query, float* output, nint stride, int count, ReadOnlySpan<int> positions, ReadOnlySpan<int> blocks,
        KvPages kv, int layer, int kvHead, float* scratch)
        => Attention<V, S>.Run(query, output, stride, count, positions, blocks, kv, layer, kvHead, scratch);

    public override int FlopsPerRound => Probes<V, S>.FlopsPerRound;

    public override float MultiplyAdds(long rounds) => Probes<V, S>.MultiplyAdds(rounds);

    public override float ReadAll(float* data, nint count) => Probes<V, S>.Read(data, count);

    public override void Apply(int function, float* input, float* output, int count)
    {
        for (int i = 0; i < count; i += Simd.Lanes)
        {
            int n = Math.Min(Simd.Lanes, count - i);
            V x = n == Simd.Lanes ? S.Load(input + i) : Simd.LoadPartial<V, S>(input + i, n);
            x = function switch { 0 => Elementary<V, S>.Exp(x), 1 => Elementary<V, S>.Gelu(x), _ => Elementary<V, S>.Silu(x) };
            Simd.StorePartial<V, S>(output + i, x, n);
        }
    }

    public override void Widen(nint input, DType type, float* output, int count)
    {
        switch (type)
        {
            case DType.Float32: Moves<V, S>.Widen<Float32Element>((byte*)input, output, count); break;
            case DType.Float16: Moves<V, S>.Widen<HalfElement>((byte*)input, output, count); break;
            default: Moves<V, S>.Widen<BFloat16Element>((byte*)input, output, count); break;
        }
    }
}
