namespace ConvLLaVA.Cuda;

/// <summary>Which unsafe calls are refused during a capture (<c>CUstreamCaptureMode</c>).</summary>
public enum CuStreamCaptureMode
{
    /// <summary>Those of all threads.</summary>
    Global = 0,

    /// <summary>Those of the capturing thread.</summary>
    ThreadLocal = 1,

    /// <summary>None.</summary>
    Relaxed = 2,
}

/// <summary>Whether a stream is being captured (<c>CUstreamCaptureStatus</c>).</summary>
public enum CuStreamCaptureStatus
{
    /// <summary>It is not.</summary>
    None = 0,

    /// <summary>It is.</summary>
    Active = 1,

    /// <summary>It was, and an error broke the capture.</summary>
    Invalidated = 2,
}

/// <summary>How a graph is made ready (<c>CUgraphInstantiate_flags</c>).</summary>
[Flags]
public enum CuGraphInstantiateFlags : uint
{
    /// <summary>Nothing special.</summary>
    None = 0,

    /// <summary>Memory that the graph allocated is freed when it is launched again.</summary>
    AutoFreeOnLaunch = 1,

    /// <summary>It is uploaded at once.</summary>
    Upload = 2,

    /// <summary>Kernels may launch it.</summary>
    DeviceLaunch = 4,

    /// <summary>Nodes keep their own priority.</summary>
    UseNodePriority = 8,
}

/// <summary>Why a graph could not be updated in place (<c>CUgraphExecUpdateResult</c>).</summary>
public enum CuGraphExecUpdateResult
{
    /// <summary>It was.</summary>
    Success = 0,

    /// <summary>For a reason that is not listed.</summary>
    Error = 1,

    /// <summary>Nodes or edges changed.</summary>
    ErrorTopologyChanged = 2,

    /// <summary>A node became another kind.</summary>
    ErrorNodeTypeChanged = 3,

    /// <summary>A node calls another kernel (older drivers).</summary>
    ErrorFunctionChanged = 4,

    /// <summary>Parameters changed that cannot.</summary>
    ErrorParametersChanged = 5,

    /// <summary>A node's kind cannot be updated.</summary>
    ErrorNotSupported = 6,

    /// <summary>A node calls another kernel in a way that cannot be updated.</summary>
    ErrorUnsupportedFunctionChange = 7,

    /// <summary>Attributes of a node changed.</summary>
    ErrorAttributesChanged = 8,
}
