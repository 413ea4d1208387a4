namespace ConvLLaVA.Engine.Instruments;

/// <summary>What NVIDIA states of a GPU. Good for bounds, never for claims: no kernel reaches these.</summary>
/// <param name="Name">What it is asked for by.</param>
/// <param name="Title">Its full name.</param>
/// <param name="GigabytesPerSecond">Memory bandwidth.</param>
/// <param name="TensorTeraflops">fp16 and bf16 tensor cores, fp32 accumulation, without sparsity.</param>
/// <param name="Teraflops">fp32 without tensor cores.</param>
public sealed record DatasheetGpu(string Name, string Title, double GigabytesPerSecond, double TensorTeraflops, double Teraflops)
{
    /// <summary>Every GPU that can be named.</summary>
    public static IReadOnlyList<DatasheetGpu> All { get; } =
    [
        new("a100", "A100 SXM 80 GB", 2039, 312, 19.5),
        new("h100", "H100 SXM", 3350, 989.4, 66.9),
        new("h200", "H200 SXM", 4800, 989.4, 66.9),
        new("rtx4090", "GeForce RTX 4090", 1008, 165.2, 82.6),
    ];

    /// <summary>The GPU of that name.</summary>
    /// <exception cref="InvalidInputException">There is none.</exception>
    public static DatasheetGpu Get(string name) => All.FirstOrDefault(gpu => gpu.Name == name)
        ?? throw new InvalidInputException($"There are no datasheet figures for a GPU '{name}'; known are {string.Join(", ", All.Select(gpu => gpu.Name))}.");

    /// <summary>The time that the roofline allows.</summary>
    internal double LeastMilliseconds(long bytes, long flops, bool tensorCores) => Math.Max(bytes / GigabytesPerSecond / 1e6, flops / (tensorCores ? TensorTeraflops : Teraflops) / 1e9);
}
