using System.Collections.Immutable;

namespace ConvLLaVA.Engine.Tensors;

/// <summary>A named, contiguous, row-major tensor of a checkpoint, in stored precision. The bytes usually lie in a memory
/// map: nothing is copied until somebody reads. The checkpoint that handed it out owns the memory and must outlive it.</summary>
public sealed unsafe class WeightTensor
{
    private readonly WeightMaker? _maker;
    private nint _data;

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

    /// <summary>A tensor whose bytes are made when they are first asked for, and can be let go of and made again.</summary>
    internal WeightTensor(string name, DType dtype, ImmutableArray<long> shape, WeightMaker maker, string source)
        : this(name, dtype, shape, (nint)0, source) => _maker = maker;

    /// <summary>A quantised matrix; its type and data are those of the codes, its shape is that of the weights.</summary>
    public WeightTensor(string name, QuantizedTensor quantized, string source)
        : this(name, quantized.Layout.CodeType, [quantized.Layout.Rows, quantized.Layout.Columns], (nint)0, source) => Quantized = quantized;

    /// <summary>The codes and scales when this is a quantised matrix, else null. Who reads elements must look here first.</summary>
    public QuantizedTensor? Quantized { get; }

    /// <summary>Full name in the checkpoint, e.g. <c>model.layers.0.mlp.up_proj.weight</c>.</summary>
    public string Name { get; }

    /// <summary>Stored element type.</summary>
    public DType DType { get; }

    /// <summary>Extents, outermost first.</summary>
    public ImmutableArray<long> Shape { get; }

    /// <summary>Address of the first element.</summary>
    public nint Data
    {
        get
        {
            if (Quantized is { } quantized) return quantized.Bytes.Codes;
            if (_maker is not { } maker) return _data;
            lock (maker) return _data != 0 ? _data : _data = maker.Make();
        }
    }

    /// <summary>Equal for tensors over the same bytes; asking does not make them.</summary>
    internal object Identity => (object?)Quantized ?? (_maker is null ? _data : _maker);

    /// <summary>True for bytes that lie in a mapped file.</summary>
    internal bool IsMapped { get; init; }

    /// <summary>Lets go of bytes that can be made again; nobody may be reading them. Of what lies in a mapped file the memory goes back to
    /// the system until somebody reads again.</summary>
    internal void Release()
    {
        Quantized?.Release();
        if (IsMapped) MappedPages.GiveBack(_data, ByteLength);
        if (_maker is not { } maker) return;
        lock (maker)
        {
            if (_data != 0) maker.Free(_data);
            _data = 0;
        }
    }

    /// <summary>Path of the file that holds it, for messages.</summary>
    public string Source { get; }

    /// <summary>Number of elements.</summary>
    public long ElementCount { get; }

    /// <summary>Number of bytes.</summary>
    public long ByteLength => Quantized?.Layout.ByteLength ?? ElementCount * DType.SizeInBytes();

    /// <summary>The bytes of a tensor below 2 GiB.</summary>
    public ReadOnlySpan<byte> Bytes => new((void*)Data, checked((int)ByteLength));

    /// <summary>Shape for messages: <c>[4096, 3072]</c>.</summary>
    public static string Format(IEnumerable<long> shape) => "[" + string.Join(", ", shape) + "]";

    /// <inheritdoc/>
    public override string ToString() => $"{Name} {Format(Shape)} {Quantized?.Format.Name() ?? DType.Name()}";
}

/// <summary>Makes the bytes of one tensor when they are wanted, instead of a file.</summary>
/// <param name="Make">Gives the address of new bytes.</param>
/// <param name="Free">Takes them back.</param>
internal sealed record WeightMaker(Func<nint> Make, Action<nint> Free);
