using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Synthetic;

/// <summary>The weights of a random checkpoint without a file: each tensor is made in memory when it is first read, with the bytes that
/// <see cref="SyntheticCheckpoint"/> would write.</summary>
internal sealed unsafe class SyntheticWeights : IDisposable
{
    private const int PieceElements = 1 << 20;
    private readonly List<nint> _held = [];
    private bool _disposed;

    /// <summary>Describes the tensors; nothing is made yet.</summary>
    public SyntheticWeights(SyntheticName name, DType dtype)
    {
        LlavaConfig config = SyntheticFiles.Config(name.Preset, dtype);
        VisionConfig vision = SyntheticFiles.Vision(name.Preset, dtype);
        (SyntheticTensor[] before, SyntheticTensor[] after) = SyntheticTensor.Language(config, vision);
        Dictionary<string, WeightTensor> tensors = [];
        foreach (SyntheticTensor tensor in before.Concat(after)) Add(tensor.Name, tensor);
        foreach (SyntheticTensor tensor in SyntheticTensor.Vision(vision)) Add(TensorNames.VisionPrefix + tensor.Name, tensor);
        Tensors = tensors;

        void Add(string full, SyntheticTensor tensor) => tensors.Add(full, new WeightTensor(full, dtype, tensor.Shape,
            () => Make(new SyntheticNumbers(name.Seed, tensor), tensor.ElementCount, dtype), name.ToString()));
    }

    /// <summary>Every tensor by its name in the decoder's files.</summary>
    public IReadOnlyDictionary<string, WeightTensor> Tensors { get; }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_held)
        {
            _disposed = true;
            foreach (nint data in _held) NativeMemory.AlignedFree((void*)data);
            _held.Clear();
        }
    }

    private nint Make(SyntheticNumbers numbers, long count, DType dtype)
    {
        int size = dtype.SizeInBytes();
        var data = (nint)NativeMemory.AlignedAlloc((nuint)(count * size), 64);
        lock (_held)
        {
            if (_disposed) NativeMemory.AlignedFree((void*)data);
            ObjectDisposedException.ThrowIf(_disposed, this);
            _held.Add(data);
        }
        Parallel.For(0, (count + PieceElements - 1) / PieceElements, piece =>
        {
            long start = piece * PieceElements;
            int elements = (int)Math.Min(PieceElements, count - start);
            numbers.Fill(start, new Span<byte>((byte*)data + (start * size), elements * size), dtype);
        });
        return data;
    }
}
