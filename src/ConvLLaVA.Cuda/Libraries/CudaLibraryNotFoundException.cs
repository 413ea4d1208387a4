namespace ConvLLaVA.Cuda;

/// <summary>A library of NVIDIA's could not be loaded. The message is the table's summary; <see cref="Table"/> holds every place that
/// was tried and the loader's reason.</summary>
public sealed class CudaLibraryNotFoundException : CudaException
{
    /// <summary>Creates the error from what was tried.</summary>
    public CudaLibraryNotFoundException(ProbeTable table) : base($"{table.Summary} {CudaAvailability.Hint}") => Table = table;

    /// <summary>What was tried.</summary>
    public ProbeTable Table { get; }
}
