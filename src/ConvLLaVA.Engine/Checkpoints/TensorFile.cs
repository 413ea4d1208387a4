using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>A file of named tensors, mapped into memory: the tensors point into it and are valid until it is disposed.</summary>
public abstract class TensorFile : IDisposable
{
    private readonly MappedFile _file;

    private protected TensorFile(MappedFile file) => _file = file;

    /// <summary>Path as given.</summary>
    public string Path => _file.Path;

    /// <summary>Length of the file in bytes.</summary>
    public long Length => _file.Length;

    /// <summary>The tensors by name.</summary>
    public abstract IReadOnlyDictionary<string, WeightTensor> Tensors { get; }

    /// <summary>Opens a <c>.safetensors</c> file as such and anything else as a PyTorch archive.</summary>
    /// <exception cref="InvalidInputException">The file is missing, broken or not in that format.</exception>
    public static TensorFile Open(string path) =>
        path.EndsWith(".safetensors", StringComparison.OrdinalIgnoreCase) ? SafetensorsFile.Open(path) : PyTorchBinFile.Open(path);

    /// <summary>Unmaps the file; its tensors must not be read afterwards. May be called again.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases what the format allocated, then the mapping.</summary>
    private protected virtual void Dispose(bool disposing) => _file.Dispose();
}
