using System.Collections.Immutable;
using System.Globalization;
using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>Random weights and inputs in memory of their own, each with other numbers.</summary>
internal sealed unsafe class RandomTensors(DType dtype, ulong seed) : IDisposable
{
    private const int PieceElements = 1 << 19;
    private readonly List<nint> _held = [];
    private int _made;

    /// <summary>A weight <c>[out, in]</c> that keeps the size of a vector.</summary>
    public WeightTensor Linear(long outFeatures, long inFeatures) => Make([outFeatures, inFeatures], 0, Math.Sqrt(3.0 / inFeatures));

    /// <summary>Uniform numbers around <paramref name="offset"/>.</summary>
    public WeightTensor Make(ImmutableArray<long> shape, double offset, double spread)
    {
        var tensor = new SyntheticTensor(string.Create(CultureInfo.InvariantCulture, $"random.{_made++}"), shape, offset, spread);
        var numbers = new SyntheticNumbers(seed, tensor);
        long count = tensor.ElementCount;
        int size = dtype.SizeInBytes();
        var data = (nint)NativeMemory.AlignedAlloc((nuint)Math.Max(64, count * size), 64);
        _held.Add(data);
        Parallel.For(0, (count + PieceElements - 1) / PieceElements, piece =>
        {
            long start = piece * PieceElements;
            int elements = (int)Math.Min(PieceElements, count - start);
            numbers.Fill(start, new Span<byte>((byte*)data + (start * size), elements * size), dtype);
        });
        return new WeightTensor(tensor.Name, dtype, shape, data, "random numbers");
    }

    public void Dispose()
    {
        foreach (nint data in _held) NativeMemory.AlignedFree((void*)data);
        _held.Clear();
    }
}
