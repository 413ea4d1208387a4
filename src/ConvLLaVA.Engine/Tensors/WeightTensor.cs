using System.Collections.Immutable;

namespace ConvLLaVA.Engine.Tensors;

/// <summary>A named, contiguous, row-major tensor of a checkpoint, in stored precision. The bytes usually lie in a memory
/// map: nothing is copied until somebody reads. The checkpoint that handed it out owns the memory and must outlive it.</summary>
public sealed unsafe class WeightTensor
{
    private readonly Lazy<nint>? _made;
    private readonly nint _data;

    /// <summary>Wraps <paramref name="data"/>, which must stay valid for as long as the owner lives.</summary>
    public WeightTensor(string name, DType dtype, ImmutableArray<long> shape, nint data, string source)
    {
        Name = name;
        DType = dtype;
        Shape = shape;
        _data = data;
        Source = source;
        long count = 1;
        foreach (long extent in shape) count = checked(count * extent);
        ElementCount = count;
    }

    /// <summary>A tensor whose bytes are made by <paramref name="make"/> when they are first asked for.</summary>
    internal WeightTensor(string name, DType dtype, ImmutableArray<long> shape, Func<nint> make, string source)
        : this(name, dtype, shape, (nint)0, source) => _made = new Lazy<nint>(make);

    /// <summary>Full name in the checkpoint, e.g. <c>model.layers.0.mlp.up_proj.weight</c>.</summary>
    public string Name { get; }

    /// <summary>Stored element type.</summary>
    public DType DType { get; }

    /// <summary>Extents, outermost first.</summary>
    public ImmutableArray<long> Shape { get; }

    /// <summary>Address of the first element.</summary>
    public nint Data => _made is null ? _data : _made.Value;

    /// <summary>Path of the file that holds it, for messages.</summary>
    public string Source { get; }

    /// <summary>Number of elements.</summary>
    public long ElementCount { get; }

    /// <summary>Number of bytes.</summary>
    public long ByteLength => ElementCount * DType.SizeInBytes();

    /// <summary>The bytes of a tensor below 2 GiB.</summary>
    public ReadOnlySpan<byte> Bytes => new((void*)Data, checked((int)ByteLength));

    /// <summary>Shape for messages: <c>[4096, 3072]</c>.</summary>
    public static string Format(IEnumerable<long> shape) => "[" + string.Join(", ", shape) + "]";

    /// <inheritdoc/>
    public override string ToString() => $"{Name} {Format(Shape)} {DType.Name()}";
}
