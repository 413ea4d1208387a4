namespace ConvLLaVA.Cuda;

/// <summary>What a call of the driver API answers (<c>CUresult</c>). Values that are not listed are printed by number.</summary>
public enum CuResult
{
    /// <summary>The call did what was asked, or the work waited for has finished.</summary>
    Success = 0,

    /// <summary>A parameter is outside what the call accepts.</summary>
    InvalidValue = 1,

    /// <summary>Not enough memory on the device, or of page-locked host memory.</summary>
    OutOfMemory = 2,

    /// <summary>cuInit has not been called or has failed.</summary>
    NotInitialized = 3,

    /// <summary>The driver is being shut down.</summary>
    Deinitialized = 4,

    /// <summary>Profiling is not possible here.</summary>
    ProfilerDisabled = 5,

    /// <summary>The library loaded is the toolkit's stub, not the driver.</summary>
    StubLibrary = 34,

    /// <summary>The call needs a newer driver.</summary>
    CallRequiresNewerDriver = 36,

    /// <summary>The device is in use by another process that holds it alone.</summary>
    DeviceUnavailable = 46,

    /// <summary>The driver sees no GPU.</summary>
    NoDevice = 100,

    /// <summary>No GPU has that number.</summary>
    InvalidDevice = 101,

    /// <summary>The virtual GPU has no licence.</summary>
    DeviceNotLicensed = 102,

    /// <summary>The module is not an image the driver can read.</summary>
    InvalidImage = 200,

    /// <summary>No context, or a dead one, is current on this thread.</summary>
    InvalidContext = 201,

    /// <summary>Memory could not be mapped.</summary>
    MapFailed = 205,

    /// <summary>Memory could not be unmapped.</summary>
    UnmapFailed = 206,

    /// <summary>The image holds no code for this GPU.</summary>
    NoBinaryForGpu = 209,

    /// <summary>Memory of the device is damaged.</summary>
    EccUncorrectable = 214,

    /// <summary>The device does not have that limit.</summary>
    UnsupportedLimit = 215,

    /// <summary>The context is in use by another thread.</summary>
    ContextAlreadyInUse = 216,

    /// <summary>The driver could not compile the PTX.</summary>
    InvalidPtx = 218,

    /// <summary>The link between GPUs failed.</summary>
    NvlinkUncorrectable = 220,

    /// <summary>The driver's PTX compiler was not found.</summary>
    JitCompilerNotFound = 221,

    /// <summary>The PTX comes from a toolkit newer than the driver.</summary>
    UnsupportedPtxVersion = 222,

    /// <summary>Compiling PTX is switched off.</summary>
    JitCompilationDisabled = 223,

    /// <summary>The module waits for child kernels on the device.</summary>
    UnsupportedDevsideSync = 225,

    /// <summary>A memory error was contained to this process.</summary>
    Contained = 226,

    /// <summary>The source of a device kernel is not valid.</summary>
    InvalidSource = 300,

    /// <summary>A file was not found.</summary>
    FileNotFound = 301,

    /// <summary>A shared object lacks a symbol.</summary>
    SharedObjectSymbolNotFound = 302,

    /// <summary>A shared object could not be initialised.</summary>
    SharedObjectInitFailed = 303,

    /// <summary>A call to the operating system failed.</summary>
    OperatingSystem = 304,

    /// <summary>The handle does not exist (any more).</summary>
    InvalidHandle = 400,

    /// <summary>An object is not in the state the call needs.</summary>
    IllegalState = 401,

    /// <summary>No symbol has that name.</summary>
    NotFound = 500,

    /// <summary>The work asked about has not finished.</summary>
    NotReady = 600,

    /// <summary>A kernel read or wrote where it may not. The context is dead.</summary>
    IllegalAddress = 700,

    /// <summary>The launch asks for more registers, threads or parameters than there are.</summary>
    LaunchOutOfResources = 701,

    /// <summary>A kernel ran longer than allowed. The context is dead.</summary>
    LaunchTimeout = 702,

    /// <summary>The primary context is already in use.</summary>
    PrimaryContextActive = 708,

    /// <summary>The context was destroyed.</summary>
    ContextIsDestroyed = 709,

    /// <summary>An assertion in a kernel failed. The context is dead.</summary>
    Assert = 710,

    /// <summary>The host memory is page-locked already.</summary>
    HostMemoryAlreadyRegistered = 712,

    /// <summary>The host memory is not page-locked.</summary>
    HostMemoryNotRegistered = 713,

    /// <summary>The device's call stack is damaged. The context is dead.</summary>
    HardwareStackError = 714,

    /// <summary>A kernel ran an instruction that does not exist. The context is dead.</summary>
    IllegalInstruction = 715,

    /// <summary>A kernel accessed a misaligned address. The context is dead.</summary>
    MisalignedAddress = 716,

    /// <summary>A kernel used an address of the wrong space. The context is dead.</summary>
    InvalidAddressSpace = 717,

    /// <summary>A kernel jumped into nothing. The context is dead.</summary>
    InvalidPc = 718,

    /// <summary>A kernel failed while running. The context is dead.</summary>
    LaunchFailed = 719,

    /// <summary>A cooperative launch does not fit the device at once.</summary>
    CooperativeLaunchTooLarge = 720,

    /// <summary>A kernel kept tensor memory. The context is dead.</summary>
    TensorMemoryLeak = 721,

    /// <summary>The operation is not allowed.</summary>
    NotPermitted = 800,

    /// <summary>The device or system cannot do that.</summary>
    NotSupported = 801,

    /// <summary>The system is not ready, e.g. the fabric manager is not running.</summary>
    SystemNotReady = 802,

    /// <summary>The driver's library and kernel module have different versions.</summary>
    SystemDriverMismatch = 803,

    /// <summary>The forward-compatibility driver does not support this GPU.</summary>
    CompatNotSupportedOnDevice = 804,

    /// <summary>The multi-process server could not be reached.</summary>
    MpsConnectionFailed = 805,

    /// <summary>The multi-process server failed.</summary>
    MpsRpcFailure = 806,

    /// <summary>The multi-process server is not ready.</summary>
    MpsServerNotReady = 807,

    /// <summary>The multi-process server has no room for another client.</summary>
    MpsMaxClientsReached = 808,

    /// <summary>The multi-process server ended this client.</summary>
    MpsClientTerminated = 810,

    /// <summary>The call is not possible while a stream is captured.</summary>
    StreamCaptureUnsupported = 900,

    /// <summary>An earlier error broke the capture.</summary>
    StreamCaptureInvalidated = 901,

    /// <summary>Two captures would have been merged.</summary>
    StreamCaptureMerge = 902,

    /// <summary>The capture did not begin on this stream.</summary>
    StreamCaptureUnmatched = 903,

    /// <summary>A stream that joined the capture was not joined back.</summary>
    StreamCaptureUnjoined = 904,

    /// <summary>The capture would depend on work outside of it.</summary>
    StreamCaptureIsolation = 905,

    /// <summary>The capture would depend on the default stream.</summary>
    StreamCaptureImplicit = 906,

    /// <summary>The event belongs to a capture.</summary>
    CapturedEvent = 907,

    /// <summary>The capture began on another thread.</summary>
    StreamCaptureWrongThread = 908,

    /// <summary>A wait took too long.</summary>
    Timeout = 909,

    /// <summary>The graph differs too much for an update in place.</summary>
    GraphExecUpdateFailure = 910,

    /// <summary>A device outside of this process failed.</summary>
    ExternalDevice = 911,

    /// <summary>The cluster size is not possible.</summary>
    InvalidClusterSize = 912,

    /// <summary>The function is not loaded yet.</summary>
    FunctionNotLoaded = 913,

    /// <summary>An unknown error inside the driver.</summary>
    Unknown = 999,
}
