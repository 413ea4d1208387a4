using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Engine;

/// <summary>Makes the backend that a model was asked to run on.</summary>
internal static partial class Backends
{
    /// <summary>The backend for <paramref name="options"/>.</summary>
    /// <param name="options">What was asked for.</param>
    /// <param name="checkpoint">The model, whose sizes GPU kernels are compiled for.</param>
    /// <param name="logger">Receives the backend's messages.</param>
    /// <param name="why">Why this one, for the log.</param>
    /// <exception cref="InvalidInputException">A GPU was asked for and cannot be used.</exception>
    public static IBackend Create(LoadOptions options, Checkpoint checkpoint, ILogger logger, out string why)
    {
        LlavaConfig config = checkpoint.Config;
        return Create(options, new HeadShape(config.HeadDim, config.NumAttentionHeads, config.NumKeyValueHeads), () => GpuType(options, checkpoint), logger, out why);
    }

    /// <summary>The backend for <paramref name="options"/> and a model of which only the attention heads are known.</summary>
    /// <param name="options">What was asked for.</param>
    /// <param name="heads">The heads that GPU kernels are compiled for.</param>
    /// <param name="gpuType">Type that a GPU computes in.</param>
    /// <param name="logger">Receives the backend's messages.</param>
    /// <param name="why">Why this one, for the log.</param>
    /// <exception cref="InvalidInputException">A GPU was asked for and cannot be used.</exception>
    public static IBackend Create(LoadOptions options, HeadShape heads, Func<DType> gpuType, ILogger logger, out string why)
    {
        why = "as asked";
        switch (options.Device)
        {
            case Device.Cuda:
                // Without NVRTC a complete kernel cache will do; what is missing is said when it is looked for.
                CudaAvailability found = CudaAvailability.Probe(needsCompiler: false);
                if (found.Reason is { } reason) throw new InvalidInputException($"The GPU that was asked for (device cuda) cannot be used: {reason} 'convllava doctor' lists every place that was looked at.");
                return new GpuBackend(Gpu(options, heads, gpuType(), found, logger));
            case Device.Auto:
                CudaAvailability cuda = CudaAvailability.Probe();
                DeviceChoice choice = DeviceChoice.Auto(cuda);
                why = $"auto: {choice.Reason}";
                if (choice.Backend != "cuda") break;
                GpuOptions gpu = Gpu(options, heads, gpuType(), cuda, logger);
                if (gpu.Type != DType.BFloat16 || CudaDevice.Get(gpu.Device).Architecture >= 80) return new GpuBackend(gpu);
                why = $"auto: {CudaDevice.Get(gpu.Device)} has no bfloat16 arithmetic; --device cuda --dtype float16 uses it";
                break;
        }
        if (options.Threads > Environment.ProcessorCount) LogManyThreads(logger, options.Threads, Environment.ProcessorCount);
        return new CpuBackend(options.Threads);
    }

    [LoggerMessage(EventId = 3, Level = LogLevel.Warning, Message = "Threads is {Threads}, but more than the {Processors} that this process has processors for only take turns; results are the same.")]
    private static partial void LogManyThreads(ILogger logger, int threads, int processors);

    /// <summary>Type that a GPU computes in when none is asked for: the 16-bit type that the language model is stored in, else any 16-bit type in
    /// the checkpoint, else float16, which the original's loader computes in.</summary>
    public static DType GpuType(LoadOptions options, Checkpoint checkpoint)
    {
        if (options.WeightType is { } asked) return asked;
        DType stored = checkpoint.Get(TensorNames.LmHead).DType;
        if (stored is DType.Float16 or DType.BFloat16) return stored;
        return checkpoint.Summary.DTypes.FirstOrDefault(type => type is DType.Float16 or DType.BFloat16, DType.Float16);
    }

    private static GpuOptions Gpu(LoadOptions options, HeadShape heads, DType type, CudaAvailability cuda, ILogger logger)
    {
        int device = options.GpuOrdinal ?? cuda.Usable[0].Ordinal;
        if (!cuda.Usable.Any(usable => usable.Ordinal == device))
            throw new InvalidInputException($"GPU {device} was asked for, but the usable ones are {string.Join(", ", cuda.Usable.Select(usable => $"{usable.Ordinal} ({usable.Name})"))}.");
        return new GpuOptions
        {
            Device = device,
            Type = type,
            HeadDim = heads.HeadDim,
            Heads = heads.Heads,
            KeyValueHeads = heads.KeyValueHeads,
            BlockSize = Models.ModelRunner.BlockSize,
            MaxDecodeRows = Math.Min(options.MaxSequences, options.MaxStepTokens),
            MemoryFraction = options.GpuMemoryFraction,
            Deterministic = options.Deterministic,
            TanhGelu = options.TanhGelu,
            KernelFolder = options.KernelFolder,
            KernelCache = options.KernelCache,
            Logger = logger,
        };
    }
}
