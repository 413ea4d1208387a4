using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>What a device does at best, measured: the rates that times are held against.</summary>
/// <param name="CopyGigabytesPerSecond">A large copy; bytes read and bytes written both count.</param>
/// <param name="GemmTeraflopsPerSecond">A large matrix product in the precision of the model.</param>
/// <param name="ReadGigabytesPerSecond">A large read on all threads; on the CPU only.</param>
/// <param name="FmaTeraflopsPerSecond">Fused multiply-adds in registers on all threads; on the CPU only.</param>
public sealed record Ceilings(double CopyGigabytesPerSecond, double GemmTeraflopsPerSecond, double? ReadGigabytesPerSecond = null, double? FmaTeraflopsPerSecond = null)
{
    /// <summary>The time that moving <paramref name="bytes"/> and computing <paramref name="flops"/> at these rates takes, done at once.</summary>
    public double LeastMilliseconds(long bytes, long flops)
        => Math.Max(bytes / (ReadGigabytesPerSecond ?? CopyGigabytesPerSecond) / 1e6, flops / (FmaTeraflopsPerSecond ?? GemmTeraflopsPerSecond) / 1e9);

    /// <summary>Measures with an empty backend, which has weights for this alone.</summary>
    internal static Ceilings Measure(InstrumentBackend device, DType weights)
    {
        bool gpu = device.Backend is not CpuBackend;
        // On the emulated device the rates mean nothing; there the measurement itself is tried.
        int n = !gpu ? 1024 : CudaLibraries.IsEmulated ? 64 : 8192;
        using var data = new RandomTensors(weights, 0);
        IBackend backend = device.Backend;
        LinearWeight square = backend.LoadLinear([data.Linear(n, n)]);
        EmbeddingTable numbers = backend.LoadEmbedding(data.Make([n, n], 0, 1));
        backend.CompleteLoading(null, CancellationToken.None);
        backend.ReserveSteps(new StepLimits(n, 1, 1, 1));
        using var workspace = new Workspace(backend.Allocate((2L * n * n * backend.ActivationType.SizeInBytes()) + 1024, MemoryOwner.Workspace), backend.ActivationType);
        double gemm = 2.0 * n * n * n / Multiply(device, workspace, square, numbers, n).Low / 1e9;
        return gpu ? new Ceilings(CopyOnDevice(device, workspace), gemm)
            : new Ceilings(CopyOnProcessor(device), gemm, ProcessorProbes.ReadGigabytesPerSecond(device), ProcessorProbes.FmaTeraflopsPerSecond(device));
    }

    private static Timing Multiply(InstrumentBackend device, Workspace workspace, LinearWeight square, EmbeddingTable numbers, int n)
    {
        using var scope = workspace.Open();
        Tensor input = workspace.Take(n, n), output = workspace.Take(n, n);
        // Zeros would let a GPU clock higher than data does.
        device.Upload(numbers, input);
        return Timing.Measure(device.Timer, () => device.Backend.Linear(input, square, Activation.None, output), 20, TimeSpan.FromSeconds(1.5));
    }

    private static double CopyOnDevice(InstrumentBackend device, Workspace workspace)
    {
        long bytes = CudaLibraries.IsEmulated ? 1 << 20 : 1 << 30;
        using MemoryBlock block = device.Backend.Allocate(2 * bytes, MemoryOwner.Workspace);
        DType type = workspace.ActivationType;
        int rows = (int)(bytes / (4096 * type.SizeInBytes()));
        Tensor source = new(block.Data, type, rows, 4096), target = source with { Data = block.Data + (nint)source.ByteLength };
        return 2.0 * source.ByteLength / Timing.Measure(device.Timer, () => device.Backend.Copy(source, target), 30, TimeSpan.FromSeconds(1)).Low / 1e6;
    }

    private static unsafe double CopyOnProcessor(InstrumentBackend device)
    {
        const long Bytes = 256 << 20;
        int threads = ((CpuBackend)device.Backend).Threads;
        using MemoryBlock block = device.Backend.Allocate(2 * Bytes, MemoryOwner.Workspace);
        byte* from = (byte*)block.Data, to = from + Bytes;
        long piece = Bytes / threads;
        void Copy() => Parallel.For(0, threads, new ParallelOptions { MaxDegreeOfParallelism = threads },
            t => Buffer.MemoryCopy(from + (t * piece), to + (t * piece), piece, piece));
        return 2.0 * threads * piece / Timing.Measure(device.Timer, Copy, 10, TimeSpan.FromSeconds(1)).Low / 1e6;
    }
}
