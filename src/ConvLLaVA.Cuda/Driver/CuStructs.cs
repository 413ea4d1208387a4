using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary><c>CUuuid</c>.</summary>
[InlineArray(16)]
internal struct CuUuid
{
    private byte _first;
}

/// <summary><c>CUlaunchConfig</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct CuLaunchConfig
{
    public uint GridDimX;
    public uint GridDimY;
    public uint GridDimZ;
    public uint BlockDimX;
    public uint BlockDimY;
    public uint BlockDimZ;
    public uint SharedMemBytes;
    public nint HStream;
    public CuLaunchAttribute* Attrs;
    public uint NumAttrs;
}

/// <summary><c>CUlaunchAttribute</c> with the values of the 64-byte union that are used here.</summary>
[StructLayout(LayoutKind.Explicit, Size = 72)]
internal struct CuLaunchAttribute
{
    [FieldOffset(0)] public CuLaunchAttributeId Id;
    [FieldOffset(8)] public ulong Value;
    [FieldOffset(8)] public int Cooperative;
    [FieldOffset(8)] public int ProgrammaticStreamSerializationAllowed;
    [FieldOffset(8)] public uint ClusterDimX;
    [FieldOffset(12)] public uint ClusterDimY;
    [FieldOffset(16)] public uint ClusterDimZ;
}

/// <summary><c>CUgraphExecUpdateResultInfo</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct CuGraphExecUpdateResultInfo
{
    public CuGraphExecUpdateResult Result;
    public nint ErrorNode;
    public nint ErrorFromNode;
}
