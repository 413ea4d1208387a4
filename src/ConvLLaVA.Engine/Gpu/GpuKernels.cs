using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>The kernels of one shape, loaded, each behind a method that knows its grid and declares its cost. All addresses are device
/// addresses; shapes are as in <c>kernels/README.md</c>.</summary>
internal sealed partial class GpuKernels : IDisposable
{
    private const int Threads = 256;
    private readonly GpuStream _stream;
    private readonly KernelShape _shape;
    private readonly Dictionary<KernelSpec, CudaModule> _modules = [];
    private readonly Dictionary<(CudaFunction, int), int> _residentBlocks = [];
    private readonly int _multiprocessors;
    private readonly int _maxShared;
    private readonly int _elementBytes;

    /// <summary>Loads compiled code.</summary>
    /// <param name="stream">Where everything runs; its context is current.</param>
    /// <param name="shape">What the kernels are specialised for.</param>
    /// <param name="specs">The specialisations.</param>
    /// <param name="code">Their code, in the same order.</param>
    /// <param name="rebuild">Compiles a specialisation whose code, out of the cache, the driver does not take.</param>
    public GpuKernels(GpuStream stream, KernelShape shape, IReadOnlyList<KernelSpec> specs, IReadOnlyList<byte[]> code, Func<KernelSpec, byte[]> rebuild)
    {
        _stream = stream;
        _shape = shape;
        _elementBytes = shape.Type.SizeInBytes();
        _multiprocessors = stream.Context.Device.MultiprocessorCount;
        _maxShared = stream.Context.Device.MaxSharedMemoryPerBlock;
        try
        {
            for (int i = 0; i < specs.Count; i++) _modules.Add(specs[i], Load(specs[i], code[i], rebuild));
            LoadVision();
            LoadLanguage();
            LoadSampling();
        }
        catch (CudaException error)
        {
            Dispose();
            throw stream.Faults.Translate(error);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (CudaModule module in _modules.Values) module.Dispose();
        _modules.Clear();
    }

    private CudaModule Load(KernelSpec spec, byte[] code, Func<KernelSpec, byte[]> rebuild)
    {
        try
        {
            return new CudaModule(_stream.Context, code);
        }
        catch (CudaException error) when (!error.IsSticky && !error.IsOutOfMemory)
        {
            return new CudaModule(_stream.Context, rebuild(spec));
        }
    }

    private CudaFunction Function(KernelSpec spec, string? name = null) => _modules[spec].GetFunction(name ?? Path.GetFileNameWithoutExtension(spec.File));

    /// <summary>Lets a kernel use <paramref name="bytes"/> of dynamic shared memory; more than 48 KiB must be asked for.</summary>
    private CudaFunction WithShared(CudaFunction function, int bytes)
    {
        if (bytes > 48 << 10 && function.MaxDynamicSharedBytes < bytes) function.MaxDynamicSharedBytes = Math.Min(bytes, _maxShared - function.StaticSharedBytes);
        return function;
    }

    /// <summary>Blocks of 256 threads that fill the device once.</summary>
    private int FillingBlocks(CudaFunction function, int sharedBytes)
    {
        if (!_residentBlocks.TryGetValue((function, sharedBytes), out int blocks))
        {
            try
            {
                blocks = Math.Max(1, function.MaxActiveBlocks(Threads, sharedBytes)) * _multiprocessors;
            }
            catch (CudaException error)
            {
                throw _stream.Faults.Translate(error);
            }
            _residentBlocks.Add((function, sharedBytes), blocks);
        }
        return blocks;
    }

    private static int Ceiling(long count, int divisor) => checked((int)((count + divisor - 1) / divisor));
}
