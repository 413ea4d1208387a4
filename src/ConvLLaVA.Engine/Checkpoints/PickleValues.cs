using System.Collections.Immutable;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

// What a pickle of weights can contain besides None (null), bool, long, double and string. These are plain records: the
// reader builds descriptions, and never an object that a file asks for by name.

/// <summary>A callable or type that the file refers to; one of a fixed table.</summary>
/// <param name="Name">Python name, for messages.</param>
/// <param name="Kind">What it may be used for.</param>
/// <param name="Element">Element type of a storage that the engine can read.</param>
internal sealed record PickleGlobal(string Name, PickleGlobalKind Kind, DType? Element = null);

/// <summary>The uses of a <see cref="PickleGlobal"/>.</summary>
internal enum PickleGlobalKind
{
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage,
}

/// <summary>A Python tuple (or <c>torch.Size</c>).</summary>
internal sealed record PickleTuple(ImmutableArray<object?> Items);

/// <summary>A Python list.</summary>
internal sealed class PickleList
{
    public List<object?> Items { get; } = [];
}

/// <summary>A Python set; only ever empty, as no allowed opcode adds to it.</summary>
internal sealed class PickleSet;

/// <summary>A dict or OrderedDict with string or integer keys.</summary>
internal sealed class PickleDict
{
    public Dictionary<object, object?> Items { get; } = [];
}

/// <summary>A storage: an entry of the archive under <c>data/</c>.</summary>
/// <param name="Type">Its storage type.</param>
/// <param name="Key">Name of the entry: digits.</param>
/// <param name="ElementCount">Elements it claims to have.</param>
internal sealed record PickleStorage(PickleGlobal Type, string Key, long ElementCount);

/// <summary>A view of a storage; offset, sizes and strides count elements.</summary>
internal sealed record PickleTensor(PickleStorage Storage, long Offset, ImmutableArray<long> Shape, ImmutableArray<long> Strides);
