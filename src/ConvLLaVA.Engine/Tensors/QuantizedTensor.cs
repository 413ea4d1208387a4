namespace ConvLLaVA.Engine.Tensors;

/// <summary>A quantised matrix in the form that files have, which backends take or repack. Its bytes lie in a mapped file, or are made
/// when they are first asked for and let go of when a backend has taken them.</summary>
public sealed unsafe class QuantizedTensor
{
    private readonly Func<QuantizedBytes>? _make;
    private readonly Action? _release;
    private readonly Lock _gate = new();
    private QuantizedBytes? _bytes;

    /// <summary>Wraps bytes that stay valid for as long as their owner lives.</summary>
    /// <param name="layout">Format and shape.</param>
    /// <param name="bytes">Where they lie.</param>
    /// <param name="release">Called when they are not needed for now, or null.</param>
    public QuantizedTensor(QuantLayout layout, QuantizedBytes bytes, Action? release = null)
    {
        Layout = layout;
        _bytes = bytes;
        _release = release;
    }

    /// <summary>A matrix that <paramref name="make"/> quantises when it is asked for.</summary>
    internal QuantizedTensor(QuantLayout layout, Func<QuantizedBytes> make)
    {
        Layout = layout;
        _make = make;
    }

    /// <summary>Format and shape.</summary>
    public QuantLayout Layout { get; }

    /// <summary>Format.</summary>
    public QuantFormat Format => Layout.Format;

    /// <summary>The parts. The addresses are valid until <see cref="Release"/>.</summary>
    public QuantizedBytes Bytes
    {
        get
        {
            lock (_gate) return _bytes ??= _make!();
        }
    }

    /// <summary>Lets go of bytes that can be made again; nobody may be reading them. Those in a mapped file stay where they are, and only
    /// their memory goes back to the system.</summary>
    public void Release()
    {
        _release?.Invoke();
        if (_make is null) return;
        lock (_gate)
        {
            _bytes?.Owner?.Dispose();
            _bytes = null;
        }
    }
}

/// <summary>Where the parts of a quantised matrix lie. <see cref="QuantLayout"/> has their shapes.</summary>
/// <param name="Codes">int8, uint8 or two 4-bit codes in a byte. [out, in] or [out, in / 2]</param>
/// <param name="Scales">float16, float32 or, for nf4, uint8 codes of its map of scales. [out, groups], [out] or [blocks]</param>
/// <param name="AbsMax">float32 factors of nf4's scales, or zero. [blocks / 256]</param>
/// <param name="Offset">Added to nf4's scales.</param>
/// <param name="Owner">Frees them, or null.</param>
public sealed record QuantizedBytes(nint Codes, nint Scales, nint AbsMax = 0, float Offset = 0, IDisposable? Owner = null);
