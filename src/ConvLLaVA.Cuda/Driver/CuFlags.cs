namespace ConvLLaVA.Cuda;

/// <summary>How a thread waits for the device (<c>CUctx_flags</c>).</summary>
[Flags]
public enum CuContextFlags : uint
{
    /// <summary>The driver chooses.</summary>
    SchedAuto = 0,

    /// <summary>Spin: shortest delay, a busy core.</summary>
    SchedSpin = 1,

    /// <summary>Spin, but let other threads run.</summary>
    SchedYield = 2,

    /// <summary>Sleep.</summary>
    SchedBlockingSync = 4,
}

/// <summary>Kind of a stream (<c>CUstream_flags</c>).</summary>
[Flags]
public enum CuStreamFlags : uint
{
    /// <summary>Ordered with the default stream.</summary>
    Default = 0,

    /// <summary>Not ordered with the default stream.</summary>
    NonBlocking = 1,
}

/// <summary>Kind of an event (<c>CUevent_flags</c>).</summary>
[Flags]
public enum CuEventFlags : uint
{
    /// <summary>With time stamps.</summary>
    Default = 0,

    /// <summary>Waiting for it sleeps.</summary>
    BlockingSync = 1,

    /// <summary>Without time stamps, which is cheaper.</summary>
    DisableTiming = 2,

    /// <summary>Can be shared with other processes.</summary>
    Interprocess = 4,
}

/// <summary>Kind of page-locked memory (<c>CU_MEMHOSTALLOC_*</c>).</summary>
[Flags]
public enum CuHostAllocFlags : uint
{
    /// <summary>Nothing special.</summary>
    None = 0,

    /// <summary>Page-locked for every context.</summary>
    Portable = 1,

    /// <summary>Mapped into the device's address space.</summary>
    DeviceMap = 2,

    /// <summary>Fast for the device to read, slow for the host.</summary>
    WriteCombined = 4,
}

/// <summary>How existing memory is page-locked (<c>CU_MEMHOSTREGISTER_*</c>).</summary>
[Flags]
public enum CuHostRegisterFlags : uint
{
    /// <summary>Nothing special.</summary>
    None = 0,

    /// <summary>Page-locked for every context.</summary>
    Portable = 1,

    /// <summary>Mapped into the device's address space.</summary>
    DeviceMap = 2,

    /// <summary>The memory belongs to another device.</summary>
    IoMemory = 4,

    /// <summary>The device will only read it.</summary>
    ReadOnly = 8,
}

/// <summary>Settings and counters of a driver memory pool (<c>CUmemPool_attribute</c>).</summary>
internal enum CuMemPoolAttribute
{
    /// <summary>Bytes the pool keeps.</summary>
    ReleaseThreshold = 4,

    /// <summary>Bytes the pool holds.</summary>
    ReservedMemCurrent = 5,

    /// <summary>Bytes in use.</summary>
    UsedMemCurrent = 7,
}

/// <summary>Options of the driver's loader and PTX compiler (<c>CUjit_option</c>).</summary>
internal enum CuJitOption
{
    /// <summary>Where messages go.</summary>
    InfoLogBuffer = 3,

    /// <summary>Room for messages; afterwards bytes used.</summary>
    InfoLogBufferSizeBytes = 4,

    /// <summary>Where errors go.</summary>
    ErrorLogBuffer = 5,

    /// <summary>Room for errors; afterwards bytes used.</summary>
    ErrorLogBufferSizeBytes = 6,

    /// <summary>Say more.</summary>
    LogVerbose = 12,
}

/// <summary>Kind of a launch attribute (<c>CUlaunchAttributeID</c>).</summary>
internal enum CuLaunchAttributeId
{
    /// <summary>None.</summary>
    Ignore = 0,

    /// <summary>All blocks are resident at once.</summary>
    Cooperative = 2,

    /// <summary>Size of a cluster of blocks.</summary>
    ClusterDimension = 4,

    /// <summary>The kernel may start before the one ahead has ended.</summary>
    ProgrammaticStreamSerialization = 6,
}
