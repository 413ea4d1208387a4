using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>One device block that holds all weights. Bindings only say what they need; once all is bound its size is known, the block is
/// allocated, and everything is uploaded through two page-locked buffers, one being filled from the memory map while the other is
/// copied.</summary>
internal sealed class WeightArena(GpuStream stream, GpuMemory memory) : IDisposable
{
    private const int Alignment = 256;
    private const long StagingBytes = 8 << 20;
    private readonly List<(long Offset, WeightSource Source)> _planned = [];
    private readonly Dictionary<(object, long, DType), Slot> _shared = [];
    private GpuBlock? _block;
    private long _bytes;

    /// <summary>Bytes that are planned or uploaded.</summary>
    public long ByteLength => _bytes;

    /// <summary>Plans room for a weight.</summary>
    public Slot Add(WeightSource source)
    {
        if (_block is not null) throw new InvalidOperationException("All weights are uploaded already.");
        long offset = _bytes;
        _bytes += (source.ByteLength + Alignment - 1) & ~(long)(Alignment - 1);
        _planned.Add((offset, source));
        return new Slot(this, offset);
    }

    /// <summary>Plans room for a tensor as it lies; one that is bound twice (tied embeddings) is uploaded once.</summary>
    public Slot AddShared(WeightTensor tensor, DType type)
    {
        (object, long, DType) key = (tensor.Identity, tensor.ElementCount, type);
        if (!_shared.TryGetValue(key, out Slot? slot)) _shared.Add(key, slot = Add(new PlainSource([tensor], type)));
        return slot;
    }

    /// <summary>Allocates and uploads.</summary>
    /// <exception cref="ConvLlavaException">The device has no room.</exception>
    public unsafe void Upload(Action<double>? progress, CancellationToken cancellation)
    {
        stream.Enter();
        _block = memory.Allocate(Math.Max(_bytes, Alignment), MemoryOwner.Weights);
        long largest = _planned.Count == 0 ? Alignment : _planned.Max(part => Math.Max(part.Source.ByteLength, (long)part.Source.Row * part.Source.Type.SizeInBytes()));
        long rowBytes = _planned.Count == 0 ? Alignment : _planned.Max(part => (long)part.Source.Row * part.Source.Type.SizeInBytes());
        using var staging = new PinnedPair(stream, Math.Max(rowBytes, Math.Min(StagingBytes, largest)));
        using CopyStream.Upload upload = stream.Copies.Begin();
        long done = 0;
        foreach ((long offset, WeightSource source) in _planned)
        {
            int size = source.Type.SizeInBytes();
            long piece = Math.Max(1, staging.ByteLength / ((long)source.Row * size)) * source.Row;
            for (long start = 0; start < source.Elements; start += piece)
            {
                cancellation.ThrowIfCancellationRequested();
                int bytes = (int)(Math.Min(piece, source.Elements - start) * size);
                source.Fill(start, new Span<byte>(staging.Next(), bytes));
                staging.Send(upload, _block.Data + (nint)(offset + (start * size)), bytes);
                done += bytes;
                progress?.Invoke((double)done / _bytes);
            }
            source.Release();
        }
        stream.Copies.Synchronize(); // the staging buffers go
        _planned.Clear();
        _shared.Clear();
    }

    /// <inheritdoc/>
    public void Dispose() => _block?.Dispose();

    /// <summary>A weight's place in the arena.</summary>
    internal sealed class Slot(WeightArena arena, long offset)
    {
        /// <summary>Device address, once uploaded.</summary>
        public nint Data => arena._block is { } block ? block.Data + (nint)offset : throw new InvalidOperationException("The weights are not uploaded yet.");
    }
}
