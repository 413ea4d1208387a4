using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Writes tensors to a safetensors file as they come. The header stands first in the format but is only known at the
/// end, so data goes to a temporary file beside the target; <see cref="Complete"/> puts header and data together in a second one
/// and renames it over the target in one step. Until then the target is untouched, and disposing early leaves nothing behind.</summary>
public sealed class SafetensorsWriter : IDisposable
{
    private readonly string _path;
    private readonly string _dataPath;
    private readonly string _wholePath;
    private readonly FileStream _data;
    private readonly List<SafetensorsEntry> _entries = [];
    private readonly HashSet<string> _names = [];
    private readonly Dictionary<string, string> _metadata = [];
    private bool _finished;

    /// <summary>Starts a file that will stand at <paramref name="path"/>.</summary>
    /// <exception cref="InvalidInputException">The folder does not exist or cannot be written to.</exception>
    public SafetensorsWriter(string path)
    {
        _path = path;
        string unique = $"{path}.{Guid.NewGuid():N}";
        _dataPath = unique + ".data.tmp";
        _wholePath = unique + ".tmp";
        if (Directory.Exists(path)) throw new InvalidInputException($"{path} cannot be written: it is a folder, expected a file name.");
        try
        {
            _data = new FileStream(_dataPath, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None, 1 << 16);
        }
        catch (Exception exception) when (IsFileError(exception))
        {
            throw Unwritable(exception);
        }
    }

    /// <summary>Adds an entry to the header's <c>__metadata__</c>.</summary>
    public void AddMetadata(string key, string value) => _metadata[key] = value;

    /// <summary>Appends a float32 tensor in row-major order.</summary>
    /// <exception cref="ArgumentException">The name is taken or the data does not fill the shape.</exception>
    /// <exception cref="InvalidInputException">The disk refuses.</exception>
    public void Add(string name, ReadOnlySpan<long> shape, ReadOnlySpan<float> data) => Add(name, DType.Float32, shape, MemoryMarshal.AsBytes(data));

    /// <summary>Appends a float16 tensor in row-major order.</summary>
    /// <exception cref="ArgumentException">The name is taken or the data does not fill the shape.</exception>
    /// <exception cref="InvalidInputException">The disk refuses.</exception>
    public void Add(string name, ReadOnlySpan<long> shape, ReadOnlySpan<Half> data) => Add(name, DType.Float16, shape, MemoryMarshal.AsBytes(data));

    /// <summary>Appends an int64 tensor in row-major order.</summary>
    /// <exception cref="ArgumentException">The name is taken or the data does not fill the shape.</exception>
    /// <exception cref="InvalidInputException">The disk refuses.</exception>
    public void Add(string name, ReadOnlySpan<long> shape, ReadOnlySpan<long> data) => Add(name, DType.Int64, shape, MemoryMarshal.AsBytes(data));

    /// <summary>Appends a tensor of any type, given as little-endian bytes in row-major order.</summary>
    /// <exception cref="ArgumentException">The name is taken or the bytes do not fill the shape.</exception>
    /// <exception cref="InvalidInputException">The disk refuses; the writer is then disposed.</exception>
    public void Add(string name, DType dtype, ReadOnlySpan<long> shape, ReadOnlySpan<byte> data)
    {
        ObjectDisposedException.ThrowIf(_finished, this);
        if (name == "__metadata__" || _names.Contains(name)) throw new ArgumentException($"The tensor name {name} is already taken.", nameof(name));
        if (SafetensorsFile.ByteCount([.. shape], dtype) != data.Length)
        {
            throw new ArgumentException($"The tensor {name} has {data.Length} bytes, which do not fill {dtype.Name()} {WeightTensor.Format(shape.ToArray())}.", nameof(data));
        }
        try
        {
            _data.Write(data);
        }
        catch (Exception exception) when (IsFileError(exception))
        {
            // Part of the tensor may be in the data file: nothing right can come of it any more.
            Dispose();
            throw Unwritable(exception);
        }
        _names.Add(name);
        _entries.Add(new SafetensorsEntry(name, dtype, [.. shape]));
    }

    /// <summary>Writes the whole file and puts it in the target's place, replacing what was there.</summary>
    /// <exception cref="InvalidInputException">The disk refuses; the target is as it was.</exception>
    public void Complete()
    {
        ObjectDisposedException.ThrowIf(_finished, this);
        try
        {
            byte[] header = SafetensorsHeader.Build(_entries, _metadata);
            using (FileStream whole = new(_wholePath, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 16))
            {
                whole.Write(header);
                _data.Position = 0;
                _data.CopyTo(whole, 1 << 20);
                // The rename must not reach the disk before the bytes do.
                whole.Flush(flushToDisk: true);
            }
            File.Move(_wholePath, _path, overwrite: true);
        }
        catch (Exception exception) when (IsFileError(exception))
        {
            throw Unwritable(exception);
        }
        finally
        {
            Dispose();
        }
    }

    /// <summary>Removes the temporary files. Without a preceding <see cref="Complete"/> nothing of the tensors stays.</summary>
    public void Dispose()
    {
        if (_finished) return;
        _finished = true;
        try
        {
            _data.Dispose();
        }
        catch (IOException)
        {
            // Flushing what is thrown away may fail on a full disk; the file goes all the same.
        }
        foreach (string temporary in (ReadOnlySpan<string>)[_dataPath, _wholePath])
        {
            try
            {
                File.Delete(temporary);
            }
            catch (Exception exception) when (IsFileError(exception))
            {
                // A leftover temporary file is not worth hiding the error that led here.
            }
        }
    }

    private static bool IsFileError(Exception exception) => exception is IOException or UnauthorizedAccessException or NotSupportedException;

    private InvalidInputException Unwritable(Exception exception) => new($"{_path} cannot be written: {exception.Message}", exception);
}
