using System.Collections.Frozen;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>The Python names that a weight file may mention. They are tags in a table, never looked up anywhere else.</summary>
internal static class PickleGlobals
{
    private static readonly FrozenDictionary<string, PickleGlobal> Table = new PickleGlobal[]
    {
        new("collections.OrderedDict", PickleGlobalKind.OrderedDict),
        new("torch._utils._rebuild_tensor_v2", PickleGlobalKind.RebuildTensor),
        new("torch._utils._rebuild_parameter", PickleGlobalKind.RebuildParameter),
        new("torch.Size", PickleGlobalKind.Size),
        new("torch.FloatStorage", PickleGlobalKind.Storage, DType.Float32),
        new("torch.HalfStorage", PickleGlobalKind.Storage, DType.Float16),
        new("torch.BFloat16Storage", PickleGlobalKind.Storage, DType.BFloat16),
        new("torch.LongStorage", PickleGlobalKind.Storage, DType.Int64),
        new("torch.IntStorage", PickleGlobalKind.Storage, DType.Int32),
        new("torch.ByteStorage", PickleGlobalKind.Storage, DType.UInt8),
        new("torch.BoolStorage", PickleGlobalKind.Storage, DType.UInt8),
        new("torch.DoubleStorage", PickleGlobalKind.Storage),
        new("torch.ShortStorage", PickleGlobalKind.Storage),
        new("torch.CharStorage", PickleGlobalKind.Storage),
        new("torch.storage.UntypedStorage", PickleGlobalKind.Storage),
        new("torch.storage.TypedStorage", PickleGlobalKind.Storage),
    }.ToFrozenDictionary(entry => entry.Name);

    /// <summary>The tag of a name, or null for a name that is not allowed.</summary>
    public static PickleGlobal? Find(string name) => Table.GetValueOrDefault(name);
}
