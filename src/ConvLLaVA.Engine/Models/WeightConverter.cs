using System.Collections.Concurrent;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Models;

/// <summary>Rounds weights to another precision once, at load, into memory of its own.</summary>
internal sealed class WeightConverter(IBackend backend, DType type) : IDisposable
{
    private const int ChunkElements = 1 << 20;
    private readonly ConcurrentDictionary<string, WeightTensor> _converted = [];
    private readonly List<MemoryBlock> _blocks = [];

    /// <summary>The tensor in the wanted precision: itself when it is stored so.</summary>
    public WeightTensor Convert(WeightTensor tensor)
    {
        if (tensor.DType == type || tensor.Quantized is not null) return tensor;
        // The key has the file in it: vision and language names come from different files.
        return _converted.GetOrAdd($"{tensor.Source}\n{tensor.Name}", _ => Copy(tensor));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (MemoryBlock block in _blocks) block.Dispose();
        _blocks.Clear();
    }

    private unsafe WeightTensor Copy(WeightTensor tensor)
    {
        long bytes = tensor.ElementCount * type.SizeInBytes();
        MemoryBlock block = backend.Allocate(bytes, MemoryOwner.Weights);
        _blocks.Add(block);
        for (long start = 0; start < tensor.ElementCount; start += ChunkElements)
        {
            int count = (int)Math.Min(ChunkElements, tensor.ElementCount - start);
            var destination = new Span<byte>((byte*)block.Data + (start * type.SizeInBytes()), count * type.SizeInBytes());
            TensorConversion.Convert(tensor, start, destination, type);
        }
        return new WeightTensor(tensor.Name, type, tensor.Shape, block.Data, tensor.Source);
    }
}
