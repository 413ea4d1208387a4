using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>How the CUDA backend runs.</summary>
public sealed record GpuOptions
{
    /// <summary>Number of the device.</summary>
    public int Device { get; init; }

    /// <summary>Type of weights, activations and KV pages: float16 or bfloat16 with fp32 arithmetic inside, or float32 to compare with the CPU.</summary>
    public DType Type { get; init; } = DType.Float16;

    /// <summary>Columns of one attention head; kernels are compiled for it.</summary>
    public int HeadDim { get; init; } = 128;

    /// <summary>Attention heads of queries.</summary>
    public int Heads { get; init; } = 32;

    /// <summary>Attention heads of keys and values; divides <see cref="Heads"/>.</summary>
    public int KeyValueHeads { get; init; } = 32;

    /// <summary>Tokens a KV page holds; kernels are compiled for it.</summary>
    public int BlockSize { get; init; } = 16;

    /// <summary>Most sequences that decode together, so that kernels for larger batches are not compiled.</summary>
    public int MaxDecodeRows { get; init; } = 16;

    /// <summary>Share of the device's memory that may be used, over 0 and up to 1.</summary>
    public double MemoryFraction { get; init; } = 0.9;

    /// <summary>Makes results bit-equal whatever else is in the batch, at the price of slower prefill: matrix products of the language
    /// model are computed by kernels that treat every row alike instead of by cuBLASLt, and one attention kernel serves prefill and decoding.
    /// The vision tower needs nothing of it: it never sees two requests in one product, so the shapes that choose cuBLASLt's
    /// algorithms follow from the picture alone.</summary>
    public bool Deterministic { get; init; }

    /// <summary>Lets cuBLASLt apply GELU, in its tanh form, instead of the models' exact one: a pass over the expanded activations less in
    /// each block of the tower, and a small error (<c>docs/decisions.md</c>).</summary>
    public bool TanhGelu { get; init; }

    /// <summary>Records decode steps as graphs and replays them.</summary>
    public bool UseGraphs { get; init; } = true;

    /// <summary>Folder of kernel sources that stand in for the embedded ones; null looks at <c>CONVLLAVA_KERNELS</c>.</summary>
    public string? KernelFolder { get; init; }

    /// <summary>Folder of compiled kernels; null looks at <c>CONVLLAVA_KERNEL_CACHE</c> and then takes the user's cache folder.</summary>
    public string? KernelCache { get; init; }

    /// <summary>Bytes that a tile of a quantised matrix may take in the storage type, ahead of a product of many rows.</summary>
    internal long DequantisedBytes { get; init; } = WeightBinder.DefaultScratchBytes;

    /// <summary>Receives messages.</summary>
    public ILogger Logger { get; init; } = NullLogger.Instance;
}
