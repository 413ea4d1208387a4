namespace ConvLLaVA.Engine.Tensors;

/// <summary>Element type of a tensor as stored.</summary>
public enum DType
{
    /// <summary>IEEE 754 binary32.</summary>
    Float32,

    /// <summary>IEEE 754 binary16.</summary>
    Float16,

    /// <summary>The upper 16 bits of a binary32.</summary>
    BFloat16,

    /// <summary>Signed 64-bit integer (token ids in dumps).</summary>
    Int64,

    /// <summary>Signed 32-bit integer.</summary>
    Int32,

    /// <summary>Unsigned 8-bit integer.</summary>
    UInt8,

    /// <summary>Signed 8-bit integer (codes of quantised weights).</summary>
    Int8,
}

/// <summary>Facts about each <see cref="DType"/>.</summary>
public static class DTypes
{
    /// <summary>Bytes one element takes.</summary>
    public static int SizeInBytes(this DType dtype) => dtype switch
    {
        DType.Float32 or DType.Int32 => 4,
        DType.Float16 or DType.BFloat16 => 2,
        DType.Int64 => 8,
        DType.UInt8 or DType.Int8 => 1,
        _ => throw new ArgumentOutOfRangeException(nameof(dtype), dtype, null),
    };

    /// <summary>True for the types that weights can have.</summary>
    public static bool IsFloating(this DType dtype) => dtype is DType.Float32 or DType.Float16 or DType.BFloat16;

    /// <summary>Short name as people write it: <c>float32</c>, <c>float16</c>, <c>bfloat16</c>, …</summary>
    public static string Name(this DType dtype) => dtype.ToString().ToLowerInvariant();
}
