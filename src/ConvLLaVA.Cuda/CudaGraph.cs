namespace ConvLLaVA.Cuda;

/// <summary>Recorded work, as a graph of operations.</summary>
public sealed unsafe class CudaGraph : CudaHandle
{
    private readonly CudaContext _context;

    internal CudaGraph(CudaContext context, nint graph) : base(HandleKind.Graph)
    {
        _context = context;
        Own(graph, context);
    }

    /// <summary>Number of operations.</summary>
    public int NodeCount
    {
        get
        {
            nuint count;
            Check.Ok(CuDriver.cuGraphGetNodes(Handle, null, &count));
            return (int)count;
        }
    }

    /// <summary>Makes the graph ready to be launched; the graph itself may be disposed afterwards.</summary>
    public CudaGraphExec Instantiate(CuGraphInstantiateFlags flags = CuGraphInstantiateFlags.None)
    {
        nint executable;
        Check.Ok(CuDriver.cuGraphInstantiateWithFlags(&executable, Handle, (ulong)flags));
        return new CudaGraphExec(_context, executable);
    }
}

/// <summary>A graph that can be launched with one call.</summary>
public sealed unsafe class CudaGraphExec : CudaHandle
{
    internal CudaGraphExec(CudaContext context, nint executable) : base(HandleKind.GraphExec) => Own(executable, context);

    /// <summary>Replaces parameters by those of <paramref name="graph"/>, which has the same shape; false, with the reason, when it differs
    /// too much and must be instantiated anew.</summary>
    /// <exception cref="CudaException">The driver failed in another way.</exception>
    public bool TryUpdate(CudaGraph graph, out CuGraphExecUpdateResult reason)
    {
        CuGraphExecUpdateResultInfo info = default;
        CuResult result = CuDriver.cuGraphExecUpdate_v2(Handle, graph.Handle, &info);
        reason = info.Result;
        if (result == CuResult.GraphExecUpdateFailure) return false;
        Check.Ok(result, nameof(CuDriver.cuGraphExecUpdate_v2));
        return true;
    }

    /// <summary>Runs the graph on <paramref name="stream"/>.</summary>
    public void Launch(CudaStream stream) => Check.Ok(CuDriver.cuGraphLaunch(Handle, stream.Handle));

    /// <summary>Uploads the graph ahead of its first launch.</summary>
    public void Upload(CudaStream stream) => Check.Ok(CuDriver.cuGraphUpload(Handle, stream.Handle));
}
