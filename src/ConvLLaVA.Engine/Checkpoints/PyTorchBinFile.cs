using System.Collections.Immutable;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>A state dict written by <c>torch.save</c> (1.6 or later): a ZIP archive of uncompressed storages and a pickle that
/// says which tensor is which view of which storage. Contiguous tensors lie in the mapping; the others are brought into row-major
/// order once, in native memory that this file owns. The pickle is read as data, never run.</summary>
public sealed unsafe class PyTorchBinFile : TensorFile
{
    private const long MaxPickleBytes = 64 << 20;
    private const int MaxRank = 64;
    private const long MaxElements = 1L << 48;

    private readonly Dictionary<string, WeightTensor> _tensors = [];
    private readonly List<nint> _owned = [];
    private readonly MappedFile _file;
    private long _ownedBytes;

    private PyTorchBinFile(MappedFile file) : base(file) => _file = file;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, WeightTensor> Tensors => _tensors;

    /// <summary>Maps <paramref name="path"/> and checks it.</summary>
    /// <exception cref="InvalidInputException">The file is missing, broken, in the format before torch 1.6, or asks for anything
    /// beyond tensors.</exception>
    public static new PyTorchBinFile Open(string path)
    {
        MappedFile file = MappedFile.Open(path);
        PyTorchBinFile opened = new(file);
        try
        {
            opened.Read();
            return opened;
        }
        catch
        {
            opened.Dispose();
            throw;
        }
    }

    private void Read()
    {
        CheckMagic();
        Dictionary<string, ZipEntry> entries = ZipContainer.Read(_file);
        string root = CheckNames(entries);
        if (entries.TryGetValue(root + "byteorder", out ZipEntry order) && !(order.Length == 6 && Slice(order).SequenceEqual("little"u8)))
        {
            throw Broken($"it has the byte order \"{Printable(Slice(order))}\", expected \"little\"");
        }
        ZipEntry pickle = entries[root + "data.pkl"];
        if (pickle.Length > MaxPickleBytes) throw Broken(string.Create(CultureInfo.InvariantCulture, $"its pickle has {pickle.Length} bytes, expected at most {MaxPickleBytes}"));
        if (PickleReader.Read(Slice(pickle), Path) is not PickleDict state) throw Broken("it does not hold a dict of tensors");
        foreach ((object key, object? value) in state.Items)
        {
            if (key is not string name || value is not PickleTensor tensor)
            {
                throw Broken($"its dict has the entry \"{key}\" that is not a named tensor");
            }
            _tensors.Add(name, Place(name, tensor, root, entries));
        }
    }

    private void CheckMagic()
    {
        if (_file.TrySlice(0, 4, out ReadOnlySpan<byte> magic) && magic.SequenceEqual("PK\u0003\u0004"u8)) return;
        if (magic.Length >= 2 && magic[0] == 0x80)
        {
            throw Broken("it is in the format that PyTorch wrote before version 1.6, expected a ZIP archive; load and save it once with a current PyTorch");
        }
        throw Broken("it does not begin like a ZIP archive");
    }

    /// <summary>Refuses every entry that a weight file does not have; returns the top folder with its slash.</summary>
    private string CheckNames(Dictionary<string, ZipEntry> entries)
    {
        string? root = null;
        foreach (string name in entries.Keys)
        {
            int slash = name.IndexOf('/');
            string top = name[..(slash + 1)], rest = name[(slash + 1)..];
            root ??= top;
            if (slash <= 0 || top != root) throw Broken($"its entry \"{name}\" is not in the one top folder");
            bool known = rest is "data.pkl" or "version" or "byteorder" or ".format_version" or ".storage_alignment" or ".data/serialization_id"
                || (rest.StartsWith("data/", StringComparison.Ordinal) && rest.Length is > 5 and <= 25 && rest.AsSpan(5).IndexOfAnyExceptInRange('0', '9') < 0);
            if (!known) throw Broken($"its entry \"{name}\" is nothing that a weight file has");
        }
        if (!entries.ContainsKey(root + "data.pkl")) throw Broken("it has no data.pkl");
        return root!;
    }

    private WeightTensor Place(string name, PickleTensor tensor, string root, Dictionary<string, ZipEntry> entries)
    {
        PickleStorage storage = tensor.Storage;
        if (storage.Type.Element is not DType dtype)
        {
            throw Broken($"the tensor {name} has the type {storage.Type.Name}, expected float32, float16, bfloat16 or an integer type");
        }
        if (!entries.TryGetValue($"{root}data/{storage.Key}", out ZipEntry entry)) throw Broken($"the storage data/{storage.Key} of the tensor {name} is not in the archive");
        int size = dtype.SizeInBytes();
        if (storage.ElementCount > MaxElements || storage.ElementCount * size != entry.Length)
        {
            throw Broken(string.Create(CultureInfo.InvariantCulture,
                $"the storage data/{storage.Key} of the tensor {name} has {entry.Length} bytes, expected {storage.ElementCount} elements of {size} bytes"));
        }
        long count = CheckView(name, tensor);
        nint start = _file.Address(entry.Offset) + (nint)(tensor.Offset * size);
        if (!IsContiguous(tensor)) start = Materialise(name, tensor, start, count, size);
        return new WeightTensor(name, dtype, tensor.Shape, start, Path) { IsMapped = IsContiguous(tensor) };
    }

    /// <summary>Checks that every element the view reaches lies in its storage; returns how many elements it has.</summary>
    private long CheckView(string name, PickleTensor tensor)
    {
        (ImmutableArray<long> shape, ImmutableArray<long> strides) = (tensor.Shape, tensor.Strides);
        if (shape.Length > MaxRank || shape.Length != strides.Length || tensor.Offset < 0
            || shape.Any(extent => extent is < 0 or > MaxElements) || strides.Any(stride => stride is < 0 or > MaxElements))
        {
            throw Broken($"the tensor {name} has the impossible shape {WeightTensor.Format(shape)} with strides {WeightTensor.Format(strides)}");
        }
        try
        {
            long count = 1;
            long last = tensor.Offset;
            for (int i = 0; i < shape.Length; i++)
            {
                count = checked(count * shape[i]);
                last = checked(last + (strides[i] * Math.Max(shape[i] - 1, 0)));
            }
            bool inside = count == 0 ? tensor.Offset <= tensor.Storage.ElementCount : last < tensor.Storage.ElementCount;
            if (inside) return count;
        }
        catch (OverflowException)
        {
            // Certainly outside.
        }
        throw Broken($"the tensor {name} of shape {WeightTensor.Format(shape)} reaches beyond its storage");
    }

    private static bool IsContiguous(PickleTensor tensor)
    {
        long expected = 1;
        for (int i = tensor.Shape.Length - 1; i >= 0; i--)
        {
            if (tensor.Shape[i] == 0) return true;
            if (tensor.Shape[i] != 1 && tensor.Strides[i] != expected) return tensor.Shape.Contains(0);
            expected *= tensor.Shape[i];
        }
        return true;
    }

    private nint Materialise(string name, PickleTensor tensor, nint source, long count, int size)
    {
        // Views may overlap, so a small file could ask for any amount; honest files stay below their own length.
        long bytes = checked(count * size);
        _ownedBytes = checked(_ownedBytes + bytes);
        if (_ownedBytes > Length) throw Broken($"the tensor {name} repeats elements of its storage so often that it would not fit into the file itself");
        nint target = (nint)NativeMemory.AlignedAlloc((nuint)bytes, 64);
        _owned.Add(target);

        int rank = tensor.Shape.Length;
        long[] index = new long[rank];
        long inner = tensor.Shape[rank - 1], step = tensor.Strides[rank - 1] * size;
        byte* to = (byte*)target;
        long position = 0;
        for (long row = 0; row < count / inner; row++)
        {
            byte* from = (byte*)source + (position * size);
            for (long i = 0; i < inner; i++, to += size, from += step) Buffer.MemoryCopy(from, to, size, size);
            for (int axis = rank - 2; axis >= 0; axis--)
            {
                position += tensor.Strides[axis];
                if (++index[axis] < tensor.Shape[axis]) break;
                position -= tensor.Strides[axis] * tensor.Shape[axis];
                index[axis] = 0;
            }
        }
        return target;
    }

    private ReadOnlySpan<byte> Slice(ZipEntry entry)
    {
        _file.TrySlice(entry.Offset, entry.Length, out ReadOnlySpan<byte> bytes);
        return bytes;
    }

    private static string Printable(ReadOnlySpan<byte> bytes) =>
        new([.. Encoding.Latin1.GetString(bytes[..Math.Min(bytes.Length, 16)]).Select(character => char.IsAsciiLetterOrDigit(character) ? character : '?')]);

    private InvalidInputException Broken(string what) => new($"{Path} is not a usable PyTorch weight file: {what}.");

    private protected override void Dispose(bool disposing)
    {
        foreach (nint memory in _owned) NativeMemory.AlignedFree((void*)memory);
        _owned.Clear();
        base.Dispose(disposing);
    }
}
