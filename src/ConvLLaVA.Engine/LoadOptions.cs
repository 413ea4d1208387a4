using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Engine;

/// <summary>Where the model runs.</summary>
public enum Device
{
    /// <summary>A GPU where one can be used, else the CPU; the log says which and why.</summary>
    Auto,

    /// <summary>The SIMD CPU backend.</summary>
    Cpu,

    /// <summary>An NVIDIA GPU. Loading fails, and says why, where none can be used.</summary>
    Cuda,
}

/// <summary>How a model is loaded.</summary>
public sealed record LoadOptions
{
    private const int MostKvCacheTokens = 1 << 30; // slots of the KV cache are numbered in 32 bits

    /// <summary>Where the model runs.</summary>
    public Device Device { get; init; } = Device.Auto;

    /// <summary>Folder of the vision tower, ahead of every other place it is looked for; null to search.</summary>
    public string? VisionTower { get; init; }

    /// <summary>Precision the weights are kept in: null uses them as stored, in place in the memory-mapped files; any other type
    /// rounds them once at load into memory of the engine. <see cref="DType.Float16"/> gives the values that the original's
    /// loader computes with. On a GPU it is also the precision of activations and KV pages; null then takes the 16-bit type that
    /// the checkpoint is stored in, and <see cref="DType.Float32"/> is for comparing with the CPU. Arithmetic is fp32 in any case.</summary>
    public DType? WeightType { get; init; }

    /// <summary>Which weights are quantised while loading, and how; null leaves them as they are. Only for a checkpoint that is not
    /// quantised already.</summary>
    public QuantOptions? Quantize { get; init; }

    /// <summary>CPU threads, at most 1024; 0 means one for each processor that the process may use, and more than that are of no use.</summary>
    public int Threads { get; init; }

    /// <summary>Most tokens of one step, 1 or more; longer prompts are processed in pieces of this size, mixed with the decoding
    /// of other requests.</summary>
    public int MaxStepTokens { get; init; } = 512;

    /// <summary>Most requests that run at a time, 1 or more; further ones wait.</summary>
    public int MaxSequences { get; init; } = 16;

    /// <summary>Tokens the KV cache has room for, over all running requests; null chooses: room for 2 GiB of pages, at least
    /// one and at most sixteen contexts of <c>max_position_embeddings</c>.</summary>
    public int? KvCacheTokens { get; init; }

    /// <summary>Whether the start of a prompt, its pictures included, is taken from pages that an earlier request has written, as long as
    /// their room is not needed: a further turn of a conversation then processes only what is new. On the CPU answers are the same to
    /// the bit either way.</summary>
    public bool ReusePrefixes { get; init; } = true;

    /// <summary>Bytes the KV cache may take, when <see cref="KvCacheTokens"/> does not say; null leaves the choice to the engine.</summary>
    public long? KvMemory { get; init; }

    /// <summary>Number of the GPU; null takes the first that can be used.</summary>
    public int? GpuOrdinal { get; init; }

    /// <summary>Share of the GPU's memory that may be used, over 0 and up to 1.</summary>
    public double GpuMemoryFraction { get; init; } = 0.9;

    /// <summary>On a GPU: makes results bit-equal whatever else runs at the same time, at the price of slower prefill. The CPU's always are.</summary>
    public bool Deterministic { get; init; }

    /// <summary>On a GPU: lets cuBLASLt apply the vision tower's GELU in its tanh form, which saves a pass over memory in each block and costs a
    /// little accuracy; the exact form is the default.</summary>
    public bool TanhGelu { get; init; }

    /// <summary>Folder of CUDA kernel sources that stand in for the built-in ones; null looks at <c>CONVLLAVA_KERNELS</c>.</summary>
    public string? KernelFolder { get; init; }

    /// <summary>Folder of compiled kernels; null looks at <c>CONVLLAVA_KERNEL_CACHE</c> and then takes the user's cache folder.</summary>
    public string? KernelCache { get; init; }

    /// <summary>Most pixels a picture may have, checked before decoding; the default is Pillow's limit. 0 means no limit.</summary>
    public long MaxImagePixels { get; init; } = 178_956_970;

    /// <summary>Times the operations of requests while it records; null for none. It serves this one model.</summary>
    public Profiler? Profiler { get; init; }

    /// <summary>Receives the engine's messages; null for none.</summary>
    public ILoggerFactory? LoggerFactory { get; init; }

    internal void Validate()
    {
        AtLeast(MaxStepTokens, 1, nameof(MaxStepTokens));
        AtLeast(MaxSequences, 1, nameof(MaxSequences));
        AtLeast(Threads, 0, nameof(Threads));
        if (Threads > CpuBackend.MaxThreads) throw new InvalidInputException($"{nameof(Threads)} is {Threads} but must be at most {CpuBackend.MaxThreads}.");
        if (KvCacheTokens is { } tokens)
        {
            AtLeast(tokens, 1, nameof(KvCacheTokens));
            if (tokens > MostKvCacheTokens) throw new InvalidInputException($"{nameof(KvCacheTokens)} is {tokens} but must be at most {MostKvCacheTokens}.");
        }
        if (GpuMemoryFraction is not (> 0 and <= 1)) throw new InvalidInputException($"{nameof(GpuMemoryFraction)} is {GpuMemoryFraction} but must be over 0 and at most 1.");
        if (KvMemory is { } bytes && bytes < 1) throw new InvalidInputException($"{nameof(KvMemory)} is {bytes} but must be at least 1.");
        if (Quantize is { } quantize && !Enum.IsDefined(quantize.Format))
            throw new InvalidInputException($"{nameof(Quantize)} asks for format {(int)quantize.Format}, which does not exist.");
        if (WeightType is { } type && !type.IsFloating())
            throw new InvalidInputException($"{nameof(WeightType)} is {type.Name()} but weights can only be float32, float16 or bfloat16.");
    }

    private static void AtLeast(int value, int least, string option)
    {
        if (value < least) throw new InvalidInputException($"{option} is {value} but must be at least {least}.");
    }
}

/// <summary>How far loading has come.</summary>
/// <param name="Stage">What is being done: <c>checkpoint</c>, <c>vision tower</c>, <c>language model</c>, <c>weights</c>,
/// <c>compiling kernels</c>, <c>memory</c>.</param>
/// <param name="Fraction">0 to 1 over the whole load.</param>
public readonly record struct LoadProgress(string Stage, double Fraction);
