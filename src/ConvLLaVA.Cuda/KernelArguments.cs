using System.Runtime.CompilerServices;

namespace ConvLLaVA.Cuda;

/// <summary>Arguments of one launch, packed on the stack: each starts on an eight-byte word, as the driver copies it from there.</summary>
public ref struct KernelArguments
{
    /// <summary>Most arguments of a kernel.</summary>
    public const int MaxCount = 40;

    private const int MaxWords = 64;

    private WordArray _words;
    private StartArray _starts;
    private int _count;
    private int _used;

    /// <summary>Number of arguments.</summary>
    public readonly int Count => _count;

    [System.Diagnostics.CodeAnalysis.UnscopedRef]
    internal ref ulong Words => ref Unsafe.As<WordArray, ulong>(ref _words);

    /// <summary>Appends <paramref name="value"/>: a number, an address or a structure, as the kernel declares it.</summary>
    public unsafe void Add<T>(T value) where T : unmanaged
    {
        int words = (sizeof(T) + 7) / 8;
        if (_count == MaxCount || _used + words > MaxWords) throw new InvalidOperationException("The kernel has more arguments than fit.");
        _starts[_count++] = (byte)_used;
        Unsafe.WriteUnaligned(ref Unsafe.As<ulong, byte>(ref Unsafe.Add(ref Words, _used)), value);
        _used += words;
    }

    internal readonly unsafe void WritePointers(ulong* words, void** pointers)
    {
        for (int i = 0; i < _count; i++) pointers[i] = words + _starts[i];
    }

    [InlineArray(MaxWords)]
    private struct WordArray
    {
        private ulong _first;
    }

    [InlineArray(MaxCount)]
    private struct StartArray
    {
        private byte _first;
    }
}
