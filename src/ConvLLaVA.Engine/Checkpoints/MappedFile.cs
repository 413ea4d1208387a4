using System.IO.MemoryMappedFiles;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>A whole file mapped read-only. Opening costs no reading: pages come in when they are touched.</summary>
internal sealed unsafe class MappedFile : IDisposable
{
    private readonly MemoryMappedFile _map;
    private readonly MemoryMappedViewAccessor _view;
    private readonly byte* _start;
    private bool _disposed;

    private MappedFile(string path, long length, MemoryMappedFile map, MemoryMappedViewAccessor view)
    {
        Path = path;
        Length = length;
        _map = map;
        _view = view;
        byte* pointer = null;
        view.SafeMemoryMappedViewHandle.AcquirePointer(ref pointer);
        _start = pointer + view.PointerOffset;
    }

    /// <summary>Path as given.</summary>
    public string Path { get; }

    /// <summary>Length in bytes when it was mapped.</summary>
    public long Length { get; }

    /// <summary>Maps <paramref name="path"/>.</summary>
    /// <exception cref="InvalidInputException">The file is missing, unreadable or empty.</exception>
    public static MappedFile Open(string path)
    {
        FileStream? stream = null;
        MemoryMappedFile? map = null;
        try
        {
            stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 1);
            long length = stream.Length;
            if (length == 0) throw new InvalidInputException($"{path} is empty, expected a weight file.");
            map = MemoryMappedFile.CreateFromFile(stream, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: false);
            return new MappedFile(path, length, map, map.CreateViewAccessor(0, length, MemoryMappedFileAccess.Read));
        }
        catch (Exception exception)
        {
            map?.Dispose();
            stream?.Dispose();
            if (exception is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
            {
                throw new InvalidInputException($"{path} cannot be opened: {exception.Message}", exception);
            }
            throw;
        }
    }

    /// <summary>Address of the byte at <paramref name="offset"/>.</summary>
    public nint Address(long offset) => (nint)(_start + offset);

    /// <summary>The bytes from <paramref name="offset"/> on; false when the file does not hold them all.</summary>
    public bool TrySlice(long offset, long count, out ReadOnlySpan<byte> bytes)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (offset < 0 || count < 0 || count > int.MaxValue || offset > Length - count)
        {
            bytes = default;
            return false;
        }
        bytes = new ReadOnlySpan<byte>(_start + offset, (int)count);
        return true;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        _view.SafeMemoryMappedViewHandle.ReleasePointer();
        _view.Dispose();
        _map.Dispose();
    }
}
