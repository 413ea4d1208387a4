using System.Globalization;
using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>All device memory of a backend, each piece booked on its owner. Image features come and go with requests; their memory is
/// kept and handed out again, so that after the first requests the driver is asked for nothing.</summary>
internal sealed class GpuMemory : IDisposable
{
    private const long FeatureGranularity = 1 << 16;
    private readonly CudaContext _context;
    private readonly GpuFaults _faults;
    private readonly double _fraction;
    private readonly Lock _gate = new();
    private readonly List<DeviceBuffer> _spare = []; // freed feature blocks
    private bool _disposed;

    /// <summary>Memory of <paramref name="context"/>, of which <paramref name="fraction"/> may be used.</summary>
    public GpuMemory(CudaContext context, GpuFaults faults, double fraction)
    {
        _context = context;
        _faults = faults;
        _fraction = fraction;
    }

    /// <summary>Who holds how much.</summary>
    public MemoryLedger Ledger { get; } = new();

    /// <summary>Bytes that may still be allocated without going over the fraction of the device that was allowed.</summary>
    public long Available
    {
        get
        {
            try
            {
                _context.MakeCurrent();
                (long free, long total) = _context.MemoryInfo;
                return Math.Max(0, free - (long)((1 - _fraction) * total));
            }
            catch (CudaException error)
            {
                throw _faults.Translate(error);
            }
        }
    }

    /// <summary>Allocates <paramref name="bytes"/> for <paramref name="owner"/>.</summary>
    /// <exception cref="ConvLlavaException">The device is full or broken; the message says what was asked, who holds what and what to change.</exception>
    public GpuBlock Allocate(long bytes, MemoryOwner owner)
    {
        _faults.ThrowIfFaulted();
        bool reusable = owner == MemoryOwner.ImageFeatures;
        if (reusable) bytes = (Math.Max(bytes, 1) + FeatureGranularity - 1) / FeatureGranularity * FeatureGranularity;
        DeviceBuffer buffer = (reusable ? TakeSpare(bytes) : null) ?? AskDriver(bytes, owner);
        Ledger.Add(owner, buffer.ByteLength);
        return new GpuBlock(this, buffer, owner);
    }

    private DeviceBuffer AskDriver(long bytes, MemoryOwner owner)
    {
        while (true)
        {
            try
            {
                _context.MakeCurrent();
                return new DeviceBuffer(_context, Math.Max(bytes, 1));
            }
            catch (CudaException error) when (error.IsOutOfMemory)
            {
                if (!FreeSpare()) throw OutOfMemory(bytes, owner, error);
            }
            catch (CudaException error)
            {
                throw _faults.Translate(error);
            }
        }
    }

    /// <summary>Takes a block back.</summary>
    internal void Free(DeviceBuffer buffer, MemoryOwner owner)
    {
        Ledger.Add(owner, -buffer.ByteLength);
        lock (_gate)
        {
            if (owner == MemoryOwner.ImageFeatures && !_disposed)
            {
                _spare.Add(buffer);
                return;
            }
        }
        buffer.Dispose();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate) _disposed = true;
        FreeSpare();
    }

    /// <summary>Bytes for people.</summary>
    public static string Size(long bytes) => bytes switch
    {
        < 1 << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1024.0:F1} KiB"),
        < 1 << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1048576.0:F1} MiB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1073741824.0:F2} GiB"),
    };

    /// <summary>The smallest spare block that is large enough, but not one that would waste more than it holds.</summary>
    private DeviceBuffer? TakeSpare(long bytes)
    {
        lock (_gate)
        {
            DeviceBuffer? best = null;
            foreach (DeviceBuffer buffer in _spare)
            {
                if (buffer.ByteLength >= bytes && buffer.ByteLength <= 2 * bytes && (best is null || buffer.ByteLength < best.ByteLength)) best = buffer;
            }
            if (best is not null) _spare.Remove(best);
            return best;
        }
    }

    /// <summary>Gives spare blocks back to the driver; false when there are none.</summary>
    private bool FreeSpare()
    {
        lock (_gate)
        {
            if (_spare.Count == 0) return false;
            foreach (DeviceBuffer buffer in _spare) buffer.Dispose();
            _spare.Clear();
            return true;
        }
    }

    private ConvLlavaException OutOfMemory(long bytes, MemoryOwner owner, CudaException error)
    {
        string room = "";
        try
        {
            (long free, long total) = _context.MemoryInfo;
            room = $" of which {Size(free)} of {Size(total)} are free";
        }
        catch (CudaException)
        {
            // The sentence does without.
        }
        string held = string.Join(", ", Ledger.Snapshot().Where(entry => entry.Value > 0).Select(entry => $"{Name(entry.Key)} {Size(entry.Value)}"));
        string advice = owner switch
        {
            MemoryOwner.Weights => "use a 16-bit dtype, or a GPU with more memory",
            MemoryOwner.Workspace => "lower the largest step (max step tokens) or the number of sequences",
            MemoryOwner.KvCache => "lower the KV cache (kv memory, kv tokens) or the GPU memory fraction",
            _ => "run fewer requests with pictures at a time, or lower the GPU memory fraction so that more is left beside the KV cache",
        };
        return new ConvLlavaException($"{_context.Device.Name} has no room for {Name(owner)}: {Size(bytes)} were asked for{room}, and this engine holds "
            + $"{(held.Length == 0 ? "nothing yet" : held)}; {advice}.", error);
    }

    private static string Name(MemoryOwner owner) => owner switch
    {
        MemoryOwner.Weights => "weights",
        MemoryOwner.Workspace => "workspace",
        MemoryOwner.KvCache => "KV cache",
        MemoryOwner.ImageFeatures => "image features",
        _ => owner.ToString(),
    };
}

/// <summary>A piece of device memory. It may outlive the backend: the buffer keeps the context alive.</summary>
internal sealed class GpuBlock(GpuMemory memory, DeviceBuffer buffer, MemoryOwner owner) : MemoryBlock
{
    private DeviceBuffer? _buffer = buffer;

    /// <inheritdoc/>
    public override nint Data => (nint)(Volatile.Read(ref _buffer) ?? throw new ObjectDisposedException(nameof(MemoryBlock))).Address;

    /// <inheritdoc/>
    public override long ByteLength { get; } = buffer.ByteLength;

    /// <inheritdoc/>
    public override void Dispose()
    {
        DeviceBuffer? held = Interlocked.Exchange(ref _buffer, null);
        if (held is not null) memory.Free(held, owner);
    }
}
