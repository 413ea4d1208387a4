using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Aligned native memory booked on a ledger. It knows the ledger only, so it may outlive the backend.</summary>
internal sealed class NativeBlock : MemoryBlock
{
    private readonly MemoryLedger _ledger;
    private readonly MemoryOwner _owner;
    private nint _data;

    /// <summary>Allocates <paramref name="bytes"/> uninitialised bytes.</summary>
    /// <exception cref="ConvLlavaException">The machine cannot give that much.</exception>
    public NativeBlock(MemoryLedger ledger, MemoryOwner owner, long bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        _ledger = ledger;
        _owner = owner;
        ByteLength = bytes;
        try
        {
            _data = MappedPages.Take(bytes);
            // Keys and values take small pages: most of them are never touched, and a huge page would be held whole.
            if (owner != MemoryOwner.KvCache && bytes >= MappedPages.HugePage) MappedPages.PreferHuge(_data, bytes);
        }
        catch (OutOfMemoryException inner)
        {
            GC.SuppressFinalize(this);
            string held = string.Join(", ", ledger.Snapshot().Where(entry => entry.Value > 0).Select(entry => $"{entry.Key} {entry.Value}"));
            throw new ConvLlavaException(
                $"{owner} asked for {bytes} bytes and the machine has no more to give; held now: {(held.Length == 0 ? "nothing" : held)}.", inner);
        }
        ledger.Add(owner, bytes);
    }

    /// <summary>Returns what was forgotten; the ledger keeps showing it as held so that leak tests see it.</summary>
    ~NativeBlock() => MappedPages.Free(_data, ByteLength);

    /// <inheritdoc/>
    public override nint Data => _data != 0 ? _data : throw new ObjectDisposedException(nameof(MemoryBlock));

    /// <inheritdoc/>
    public override long ByteLength { get; }

    /// <summary>True when <paramref name="address"/> lies in this block and it is still held.</summary>
    public bool Holds(nint address)
    {
        nint data = _data;
        return data != 0 && address >= data && address < data + (nint)ByteLength;
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        nint data = Interlocked.Exchange(ref _data, 0);
        if (data == 0) return;
        GC.SuppressFinalize(this);
        MappedPages.Free(data, ByteLength);
        _ledger.Add(_owner, -ByteLength);
    }
}
