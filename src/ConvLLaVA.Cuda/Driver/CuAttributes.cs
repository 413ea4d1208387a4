namespace ConvLLaVA.Cuda;

/// <summary>What can be asked about a device (<c>CUdevice_attribute</c>).</summary>
public enum CuDeviceAttribute
{
    /// <summary>Threads a block may have.</summary>
    MaxThreadsPerBlock = 1,

    /// <summary>Threads a block may have along x.</summary>
    MaxBlockDimX = 2,

    /// <summary>Threads a block may have along y.</summary>
    MaxBlockDimY = 3,

    /// <summary>Threads a block may have along z.</summary>
    MaxBlockDimZ = 4,

    /// <summary>Blocks a grid may have along x.</summary>
    MaxGridDimX = 5,

    /// <summary>Blocks a grid may have along y.</summary>
    MaxGridDimY = 6,

    /// <summary>Blocks a grid may have along z.</summary>
    MaxGridDimZ = 7,

    /// <summary>Bytes of shared memory a block may use without opting in.</summary>
    MaxSharedMemoryPerBlock = 8,

    /// <summary>Threads of a warp.</summary>
    WarpSize = 10,

    /// <summary>Registers a block may use.</summary>
    MaxRegistersPerBlock = 12,

    /// <summary>Peak clock in kHz.</summary>
    ClockRate = 13,

    /// <summary>Multiprocessors.</summary>
    MultiprocessorCount = 16,

    /// <summary>1 when the GPU shares the host's memory.</summary>
    Integrated = 18,

    /// <summary>0 when any process may use it; 2 when none may.</summary>
    ComputeMode = 20,

    /// <summary>1 when memory errors are corrected.</summary>
    EccEnabled = 32,

    /// <summary>Number of the PCI bus.</summary>
    PciBusId = 33,

    /// <summary>Number on the PCI bus.</summary>
    PciDeviceId = 34,

    /// <summary>Number of the PCI domain.</summary>
    PciDomainId = 50,

    /// <summary>Memory clock in kHz.</summary>
    MemoryClockRate = 36,

    /// <summary>Width of the memory bus in bits.</summary>
    GlobalMemoryBusWidth = 37,

    /// <summary>Bytes of the L2 cache.</summary>
    L2CacheSize = 38,

    /// <summary>Threads that may live on a multiprocessor.</summary>
    MaxThreadsPerMultiprocessor = 39,

    /// <summary>Copy engines.</summary>
    AsyncEngineCount = 40,

    /// <summary>1 when host and device share one address space.</summary>
    UnifiedAddressing = 41,

    /// <summary>Major number of the compute capability.</summary>
    ComputeCapabilityMajor = 75,

    /// <summary>Minor number of the compute capability.</summary>
    ComputeCapabilityMinor = 76,

    /// <summary>1 when streams may have priorities.</summary>
    StreamPrioritiesSupported = 78,

    /// <summary>Bytes of shared memory of a multiprocessor.</summary>
    MaxSharedMemoryPerMultiprocessor = 81,

    /// <summary>Registers of a multiprocessor.</summary>
    MaxRegistersPerMultiprocessor = 82,

    /// <summary>1 when cooperative launches are possible.</summary>
    CooperativeLaunch = 95,

    /// <summary>Bytes of shared memory a block may use after opting in.</summary>
    MaxSharedMemoryPerBlockOptin = 97,

    /// <summary>1 when existing host memory can be page-locked.</summary>
    HostRegisterSupported = 99,

    /// <summary>Blocks that may live on a multiprocessor.</summary>
    MaxBlocksPerMultiprocessor = 106,

    /// <summary>Bytes of L2 that can be set aside.</summary>
    MaxPersistingL2CacheSize = 108,

    /// <summary>Bytes of shared memory a block loses to the driver.</summary>
    ReservedSharedMemoryPerBlock = 111,

    /// <summary>1 when stream-ordered allocation is possible.</summary>
    MemoryPoolsSupported = 115,

    /// <summary>1 when blocks can form clusters.</summary>
    ClusterLaunch = 120,
}

/// <summary>What can be asked about a kernel, or set (<c>CUfunction_attribute</c>).</summary>
public enum CuFunctionAttribute
{
    /// <summary>Threads a block of this kernel may have.</summary>
    MaxThreadsPerBlock = 0,

    /// <summary>Bytes of static shared memory.</summary>
    SharedSizeBytes = 1,

    /// <summary>Bytes of constant memory.</summary>
    ConstSizeBytes = 2,

    /// <summary>Bytes of local memory a thread uses: stack and spills.</summary>
    LocalSizeBytes = 3,

    /// <summary>Registers a thread uses.</summary>
    NumRegs = 4,

    /// <summary>PTX architecture it was compiled for, as major * 10 + minor.</summary>
    PtxVersion = 5,

    /// <summary>Architecture of the machine code, as major * 10 + minor.</summary>
    BinaryVersion = 6,

    /// <summary>Bytes of dynamic shared memory a launch may ask for.</summary>
    MaxDynamicSharedSizeBytes = 8,

    /// <summary>Percent of the L1 that is wanted as shared memory.</summary>
    PreferredSharedMemoryCarveout = 9,

    /// <summary>1 when clusters beyond 8 blocks are allowed.</summary>
    NonPortableClusterSizeAllowed = 14,
}
