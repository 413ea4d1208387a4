using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>C strings, and the array of pointers to them that C calls <c>const char * const *</c>.</summary>
internal sealed unsafe class Utf8Array : IDisposable
{
    private readonly nint[] _strings;
    private readonly byte** _pointers;
    private bool _disposed;

    /// <summary>Copies <paramref name="texts"/> to native memory.</summary>
    public Utf8Array(IReadOnlyCollection<string> texts)
    {
        _strings = [.. texts.Select(Marshal.StringToCoTaskMemUTF8)];
        _pointers = (byte**)NativeMemory.Alloc((nuint)Math.Max(1, _strings.Length), (nuint)sizeof(nint));
        for (int i = 0; i < _strings.Length; i++) _pointers[i] = (byte*)_strings[i];
    }

    /// <summary>Copies one text.</summary>
    public Utf8Array(string text) : this([text]) { }

    /// <summary>Number of strings.</summary>
    public int Count => _strings.Length;

    /// <summary>The array; null when there are no strings.</summary>
    public byte** Pointers => Count == 0 ? null : _pointers;

    /// <summary>The first string.</summary>
    public byte* First => _pointers[0];

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        foreach (nint text in _strings) Marshal.FreeCoTaskMem(text);
        NativeMemory.Free(_pointers);
    }
}
