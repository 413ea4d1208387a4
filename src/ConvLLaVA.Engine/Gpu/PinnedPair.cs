using ConvLLaVA.Cuda;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Two page-locked buffers that take turns: one is filled while the other is still being copied.</summary>
internal sealed unsafe class PinnedPair : IDisposable
{
    private readonly GpuStream _stream;
    private readonly PinnedBuffer[] _buffers = new PinnedBuffer[2];
    private readonly CudaEvent[] _copied = new CudaEvent[2];
    private int _turn;

    /// <summary>Two buffers of <paramref name="bytes"/> each; what is read back is copied on <paramref name="stream"/>.</summary>
    public PinnedPair(GpuStream stream, long bytes)
    {
        _stream = stream;
        ByteLength = bytes;
        try
        {
            for (int i = 0; i < 2; i++)
            {
                _buffers[i] = new PinnedBuffer(stream.Context, bytes);
                _copied[i] = new CudaEvent(stream.Context);
            }
        }
        catch (CudaException error)
        {
            Dispose();
            throw stream.Faults.Translate(error);
        }
    }

    /// <summary>Bytes of one buffer.</summary>
    public long ByteLength { get; }

    /// <summary>The buffer whose turn it is, once its last copy is done.</summary>
    public byte* Next()
    {
        _stream.WaitFor(_copied[_turn]); // an event that was never recorded has happened
        return (byte*)_buffers[_turn].Pointer;
    }

    /// <summary>Copies the first <paramref name="bytes"/> bytes of the buffer whose turn it is as part of an upload, and ends its turn.</summary>
    public void Send(CopyStream.Upload upload, nint destination, long bytes)
    {
        upload.Copy(destination, _buffers[_turn].Pointer, bytes, _copied[_turn]);
        _turn ^= 1;
    }

    /// <summary>Copies <paramref name="source"/> through the buffers.</summary>
    public void Send(CopyStream.Upload upload, nint destination, ReadOnlySpan<byte> source)
    {
        while (source.Length > 0)
        {
            int bytes = (int)Math.Min(source.Length, ByteLength);
            source[..bytes].CopyTo(new Span<byte>(Next(), bytes));
            Send(upload, destination, bytes);
            destination += bytes;
            source = source[bytes..];
        }
    }

    /// <summary>Copies at most one buffer of device memory to the host and waits for it. What is returned holds until the pair's next use but one.</summary>
    public byte* Receive(nint source, int bytes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes, ByteLength);
        byte* buffer = Next();
        CudaEvent copied = _copied[_turn];
        _turn ^= 1;
        _stream.CopyToHost(buffer, source, bytes);
        _stream.Record(copied);
        _stream.WaitFor(copied);
        return buffer;
    }

    /// <summary>Copies device memory to the host piece by piece; while one piece is taken the next is under way.</summary>
    /// <param name="source">Device address.</param>
    /// <param name="bytes">How many.</param>
    /// <param name="take">Is given each piece: its first byte, its address and its length.</param>
    public void Receive(nint source, long bytes, PieceTaker take)
    {
        long asked = 0, taken = 0;
        int held = 0;
        Span<long> lengths = [0, 0];
        while (taken < bytes)
        {
            while (held < 2 && asked < bytes)
            {
                byte* buffer = Next();
                lengths[_turn] = Math.Min(bytes - asked, ByteLength);
                _stream.CopyToHost(buffer, source + (nint)asked, lengths[_turn]);
                _stream.Record(_copied[_turn]);
                asked += lengths[_turn];
                held++;
                _turn ^= 1;
            }
            int oldest = held == 2 ? _turn : _turn ^ 1;
            _stream.WaitFor(_copied[oldest]);
            take(taken, (byte*)_buffers[oldest].Pointer, (int)lengths[oldest]);
            taken += lengths[oldest];
            held--;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PinnedBuffer? buffer in _buffers) buffer?.Dispose();
        foreach (CudaEvent? copied in _copied) copied?.Dispose();
    }

    /// <summary>Takes a piece of what was read.</summary>
    public delegate void PieceTaker(long start, byte* data, int bytes);
}
