using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>What the product does besides multiplying.</summary>
[Flags]
internal enum GemmKind
{
    /// <summary>y = alpha x W^T.</summary>
    Plain = 0,

    /// <summary>The bias is added.</summary>
    Bias = 1,

    /// <summary>The result is added onto y.</summary>
    Accumulate = 2,

    /// <summary>y is float, whatever x is.</summary>
    FloatOutput = 4,

    /// <summary>GELU in its tanh form, after the bias.</summary>
    TanhGelu = 8,
}

/// <summary>Matrix products through cuBLASLt. For each shape and epilogue the descriptors, layouts and the heuristic's choice are made once
/// and kept.
/// <para>Row-major y [m, n] = x [m, k] W^T with W [n, k] is, column by column, y^T = W x^T: W enters transposed as the first
/// matrix, x as it lies as the second, and a bias is one value a row of the result, as the epilogue wants it.</para></summary>
internal sealed class GemmPlans : IDisposable
{
    private readonly GpuStream _stream;
    private readonly CublasLtHandle _handle;
    private readonly GpuBlock _workspace;
    private readonly Dictionary<PlanKey, MatmulPlan> _plans = [];
    private readonly CudaDataType _type;
    private readonly int _elementBytes;

    /// <summary>Products of matrices of <paramref name="type"/>.</summary>
    public GemmPlans(GpuStream stream, GpuMemory memory, DType type)
    {
        _stream = stream;
        _elementBytes = type.SizeInBytes();
        _type = GemmParts.TypeOf(type);
        // NVIDIA advises 32 MiB for Hopper and newer and 4 MiB before; split products need it.
        _workspace = memory.Allocate(stream.Context.Device.Architecture >= 90 ? 32 << 20 : 4 << 20, MemoryOwner.Workspace);
        try
        {
            _handle = new CublasLtHandle(stream.Context);
        }
        catch (CudaException error)
        {
            _workspace.Dispose();
            throw stream.Faults.Translate(error);
        }
    }

    /// <summary>Plans made so far.</summary>
    public int Count => _plans.Count;

    /// <summary>y = alpha x W^T, and what <paramref name="kind"/> says.</summary>
    /// <param name="x">[m, k], storage type.</param>
    /// <param name="weight">[n, k], storage type.</param>
    /// <param name="bias">[n], storage type; only with <see cref="GemmKind.Bias"/>.</param>
    /// <param name="y">[m, n], storage type, or float with <see cref="GemmKind.FloatOutput"/>.</param>
    /// <param name="m">Rows of x.</param>
    /// <param name="n">Rows of W.</param>
    /// <param name="k">Columns of both.</param>
    /// <param name="alpha">Factor of the product.</param>
    /// <param name="kind">The rest.</param>
    /// <param name="stride">Elements from one row of y to the next; 0: n.</param>
    public void Run(nint x, nint weight, nint bias, nint y, int m, int n, int k, float alpha, GemmKind kind, int stride = 0)
    {
        var key = new PlanKey(m, n, k, stride == 0 ? n : stride, kind, AlignmentOf(weight), AlignmentOf(x), AlignmentOf(y));
        if (!_plans.TryGetValue(key, out MatmulPlan? plan)) _plans.Add(key, plan = Create(key, bias));
        if ((kind & GemmKind.Bias) != 0) SetBias(plan, bias);
        int outputBytes = (kind & GemmKind.FloatOutput) != 0 ? 4 : _elementBytes;
        long bytes = ((((long)m * k) + ((long)n * k)) * _elementBytes) + ((long)m * n * outputBytes * ((kind & GemmKind.Accumulate) != 0 ? 2 : 1));
        _stream.Multiply(plan, alpha, weight, x, (kind & GemmKind.Accumulate) != 0 ? 1 : 0, y, _workspace.Data, _workspace.ByteLength,
            new Cost("gemm", bytes, 2L * m * n * k));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (MatmulPlan plan in _plans.Values) plan.Dispose();
        _plans.Clear();
        _handle.Dispose();
        _workspace.Dispose();
    }

    private MatmulPlan Create(PlanKey key, nint bias)
    {
        try
        {
            GemmParts parts = GemmParts.Of(_type, key.M, key.N, key.K, key.Kind, _workspace.ByteLength, key.Stride);
            if ((key.Kind & GemmKind.Bias) != 0) parts.Descriptor.Bias = (ulong)bias;
            using MatmulPreference preference = parts.Preference;
            preference.SetAlignment(key.WeightAlignment, key.InputAlignment, key.OutputAlignment, key.OutputAlignment);
            return MatmulPlan.Create(_handle, parts.Descriptor, parts.Weight, parts.Input, parts.Output, parts.Output, preference);
        }
        catch (CudaException error)
        {
            throw _stream.Faults.Translate(error, _stream.Raw);
        }
    }

    private void SetBias(MatmulPlan plan, nint bias)
    {
        try
        {
            plan.Descriptor.Bias = (ulong)bias;
        }
        catch (CudaException error)
        {
            throw _stream.Faults.Translate(error);
        }
    }

    /// <summary>The largest power of two up to 256 that divides an address: what the heuristic may rely on.</summary>
    private static int AlignmentOf(nint address) => (int)Math.Min(256, address & -address);

    private readonly record struct PlanKey(int M, int N, int K, int Stride, GemmKind Kind, int WeightAlignment, int InputAlignment, int OutputAlignment);
}
