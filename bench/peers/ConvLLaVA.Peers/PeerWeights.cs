using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Peers;

/// <summary>The random weights that every contestant gets, by the names of a checkpoint.</summary>
internal sealed class PeerWeights(string model, DType dtype) : IDisposable
{
    private readonly SyntheticWeights _weights = new(SyntheticName.Parse(model), dtype);

    /// <summary>Sizes.</summary>
    public SyntheticPreset Sizes { get; } = SyntheticName.Parse(model).Preset;

    /// <summary>The tower's tensors by their names in its own files, without the final norm, which is never applied.</summary>
    public IEnumerable<string> VisionNames => _weights.Tensors.Keys.Where(name => name.StartsWith(TensorNames.VisionPrefix, StringComparison.Ordinal))
        .Select(name => name[TensorNames.VisionPrefix.Length..]).Where(name => !name.StartsWith("layernorm.", StringComparison.Ordinal));

    /// <summary>Makes a tensor, hands it on and lets go of it.</summary>
    public T Use<T>(string name, Func<WeightTensor, T> use)
    {
        if (!_weights.Tensors.TryGetValue(name, out WeightTensor? tensor)) throw new ArgumentException($"There is no tensor {name}.", nameof(name));
        try
        {
            return use(tensor);
        }
        finally
        {
            tensor.Release();
        }
    }

    /// <summary>A tensor's extents.</summary>
    public long[] Shape(string name) => [.. _weights.Tensors[name].Shape];

    public void Dispose() => _weights.Dispose();
}
