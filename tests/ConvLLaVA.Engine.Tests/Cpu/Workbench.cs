using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Cpu;

/// <summary>A backend with helpers that turn arrays into tensors and weights; frees them all and checks that nothing is left.</summary>
internal sealed unsafe class Workbench : IDisposable
{
    private readonly List<MemoryBlock> _blocks = [];
    private readonly NativeMemoryOwner _weights = new();

    public Workbench(CpuPath path = CpuPath.Auto, int threads = 2, GemmBlocks? blocks = null)
    {
        Assert.SkipUnless(CpuPaths.IsSupported(path), $"this machine cannot run {path}");
        Backend = blocks is { } cut ? new CpuBackend(threads, path, cut) : new CpuBackend(threads, path);
    }

    public CpuBackend Backend { get; }

    /// <summary>The paths as test data.</summary>
    public static TheoryData<CpuPath> Paths => [CpuPath.Avx512, CpuPath.Avx2, CpuPath.Vector128, CpuPath.Scalar];

    public static float[] Random(Random random, int count, double scale = 1)
    {
        var values = new float[count];
        for (int i = 0; i < count; i++) values[i] = (float)((random.NextDouble() * 2 - 1) * scale);
        return values;
    }

    /// <summary>A matrix of the backend. Rows after it are poisoned with NaN to show reads and writes beyond the end.</summary>
    public Tensor Matrix(float[] values, int rows)
    {
        MemoryBlock block = Backend.Allocate((values.Length + 64) * sizeof(float), MemoryOwner.Workspace);
        _blocks.Add(block);
        var all = new Span<float>((void*)block.Data, values.Length + 64);
        all.Fill(float.NaN);
        values.CopyTo(all);
        return new Tensor(block.Data, DType.Float32, rows, rows == 0 ? 0 : values.Length / rows);
    }

    public Tensor Empty(int rows, int columns)
    {
        var values = new float[rows * columns];
        Array.Fill(values, float.NaN);
        return Matrix(values, rows) with { Columns = columns };
    }

    /// <summary>The values of a matrix; also that nothing was written behind it.</summary>
    public float[] Get(Tensor tensor)
    {
        var values = new float[tensor.Rows * tensor.Columns];
        Backend.Read(tensor, values);
        foreach (float poison in new ReadOnlySpan<float>((float*)tensor.Data + values.Length, 64)) Assert.True(float.IsNaN(poison), "written beyond the end");
        return values;
    }

    /// <summary>A checkpoint tensor; <paramref name="values"/> are changed to what the stored type can hold.</summary>
    public WeightTensor Weight(float[] values, DType dtype, params long[] shape)
    {
        nint data = _weights.Allocate((long)values.Length * dtype.SizeInBytes());
        for (int i = 0; i < values.Length; i++)
        {
            switch (dtype)
            {
                case DType.Float32:
                    ((float*)data)[i] = values[i];
                    break;
                case DType.Float16:
                    ((Half*)data)[i] = (Half)values[i];
                    values[i] = (float)(Half)values[i];
                    break;
                default:
                    uint bits = BitConverter.SingleToUInt32Bits(values[i]) & 0xFFFF0000;
                    ((ushort*)data)[i] = (ushort)(bits >> 16);
                    values[i] = BitConverter.UInt32BitsToSingle(bits);
                    break;
            }
        }
        return new WeightTensor("test.weight", dtype, [.. shape], data, "test.safetensors");
    }

    public LinearWeight Linear(float[] weight, int rows, DType dtype = DType.Float32, float[]? bias = null, float[]? scale = null)
        => Backend.LoadLinear([Weight(weight, dtype, rows, weight.Length / rows)],
            bias is null ? null : Weight(bias, DType.Float32, bias.Length), scale is null ? null : Weight(scale, DType.Float32, scale.Length));

    public NormWeight Norm(float[] weight, float[]? bias, float epsilon)
        => Backend.LoadNorm(Weight(weight, DType.Float32, weight.Length), bias is null ? null : Weight(bias, DType.Float32, bias.Length), epsilon);

    public Workspace Workspace(long bytes = 1 << 22) => new(Backend.Allocate(bytes, MemoryOwner.Workspace));

    /// <summary>Largest error over (1 + the largest expected magnitude).</summary>
    public static double Error(float[] actual, double[] expected)
    {
        Assert.Equal(expected.Length, actual.Length);
        double worst = 0, largest = 0;
        for (int i = 0; i < actual.Length; i++)
        {
            if (float.IsNaN(actual[i])) return double.PositiveInfinity;
            worst = Math.Max(worst, Math.Abs(actual[i] - expected[i]));
            largest = Math.Max(largest, Math.Abs(expected[i]));
        }
        return worst / (1 + largest);
    }

    public void Dispose()
    {
        foreach (MemoryBlock block in _blocks) block.Dispose();
        Backend.Dispose();
        _weights.Dispose();
        Assert.Equal(0, Backend.Memory.Total);
    }

    private sealed class NativeMemoryOwner : IDisposable
    {
        private readonly List<nint> _held = [];

        public nint Allocate(long bytes)
        {
            var data = (nint)System.Runtime.InteropServices.NativeMemory.AlignedAlloc((nuint)bytes, 64);
            _held.Add(data);
            return data;
        }

        public void Dispose()
        {
            foreach (nint data in _held) System.Runtime.InteropServices.NativeMemory.AlignedFree((void*)data);
            _held.Clear();
        }
    }
}
