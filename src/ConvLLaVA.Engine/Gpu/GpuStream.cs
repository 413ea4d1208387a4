using ConvLLaVA.Cuda;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Is told of every operation on the device around its launch: the hook of profilers and benchmarks.</summary>
internal interface IGpuObserver
{
    /// <summary>An operation is about to be launched on <paramref name="stream"/>.</summary>
    /// <param name="name">What it is: <c>gemv swiglu</c>, <c>gemm</c>.</param>
    /// <param name="bytes">Bytes it must move at least.</param>
    /// <param name="flops">Floating-point operations it does.</param>
    /// <param name="stream">Where it runs.</param>
    void Before(string name, long bytes, long flops, CudaStream stream);

    /// <summary>It was launched.</summary>
    void After(CudaStream stream);
}

/// <summary>What one launch moves and computes, declared by whoever launches it.</summary>
/// <param name="Name">Name for people.</param>
/// <param name="Bytes">Bytes it must move at least.</param>
/// <param name="Flops">Floating-point operations it does.</param>
internal readonly record struct Cost(string Name, long Bytes, long Flops);

/// <summary>The stream that everything but uploads runs on, with the engine's errors in place of the libraries'. Nothing here allocates
/// memory.
/// <para>A kernel may begin while the one ahead of it ends (programmatic dependent launch), and some read what steps before wrote ahead of
/// their <c>pdl_wait</c>. That holds because the first kernel of a step, and every one behind anything but a kernel of ours, waits for
/// all that went before: here it is decided, in one place, and recordings inherit it.</para></summary>
internal sealed unsafe class GpuStream : IDisposable
{
    private readonly CudaStream _stream;
    private readonly bool _overlap;
    private bool _afterKernel; // the last thing on the stream is a kernel of ours, of this step
    private int _thread;

    /// <summary>A stream of <paramref name="context"/>.</summary>
    /// <param name="context">The context, current on this thread.</param>
    /// <param name="faults">Remembers what breaks the device.</param>
    /// <param name="overlap">Let a kernel begin while the one ahead of it ends (programmatic dependent launch).</param>
    public GpuStream(CudaContext context, GpuFaults faults, bool overlap)
    {
        Context = context;
        Faults = faults;
        _overlap = overlap;
        _stream = new CudaStream(context);
        try
        {
            Copies = new CopyStream(this);
        }
        catch
        {
            _stream.Dispose();
            throw;
        }
    }

    /// <summary>The context.</summary>
    public CudaContext Context { get; }

    /// <summary>What broke the device.</summary>
    public GpuFaults Faults { get; }

    /// <summary>Where uploads go.</summary>
    public CopyStream Copies { get; }

    /// <summary>The stream itself, to ask about.</summary>
    public CudaStream Raw => _stream;

    /// <summary>Is told of every operation; null for nobody. Graphs are not replayed while somebody is told.</summary>
    public IGpuObserver? Observer { get; set; }

    /// <summary>How often another thread than before took over the device.</summary>
    public long ThreadChanges { get; private set; }

    /// <summary>Makes the context current on this thread and refuses work on a broken device: the first thing every operation does.</summary>
    public void Enter()
    {
        Faults.ThrowIfFaulted();
        if (_thread != Environment.CurrentManagedThreadId)
        {
            _thread = Environment.CurrentManagedThreadId;
            ThreadChanges++;
        }
        try
        {
            Context.MakeCurrent();
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error);
        }
    }

    /// <summary>Begins a step: its first kernel waits for all that went before.</summary>
    public void BeginStep() => _afterKernel = false;

    /// <summary>Launches a kernel.</summary>
    public void Launch(CudaFunction kernel, Dim3 grid, Dim3 block, int sharedBytes, scoped ref KernelArguments arguments, Cost cost)
    {
        try
        {
            void** parameters = stackalloc void*[KernelArguments.MaxCount];
            bool overlap = _overlap && _afterKernel && Observer is null; // observers put events between kernels
            Observer?.Before(cost.Name, cost.Bytes, cost.Flops, _stream);
            fixed (ulong* words = &arguments.Words)
            {
                arguments.WritePointers(words, parameters);
                if (overlap) kernel.LaunchEx(_stream, grid, block, (uint)sharedBytes, parameters, overlapPrevious: true);
                else kernel.Launch(_stream, grid, block, (uint)sharedBytes, parameters);
            }
            Observer?.After(_stream);
            _afterKernel = true;
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error, _stream);
        }
    }

    /// <summary>Runs a matrix product.</summary>
    public void Multiply(MatmulPlan plan, float alpha, nint a, nint b, float beta, nint d, nint workspace, long workspaceBytes, Cost cost)
    {
        _afterKernel = false;
        try
        {
            Observer?.Before(cost.Name, cost.Bytes, cost.Flops, _stream);
            plan.Run(_stream, alpha, (ulong)a, (ulong)b, beta, (ulong)d, (ulong)d, (ulong)workspace, workspaceBytes);
            Observer?.After(_stream);
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error, _stream);
        }
    }

    /// <summary>Copies within the device.</summary>
    public void CopyOnDevice(nint destination, nint source, long bytes)
    {
        _afterKernel = false;
        try
        {
            _stream.CopyOnDevice((ulong)destination, (ulong)source, bytes);
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error);
        }
    }

    /// <summary>Fills device memory with a byte.</summary>
    public void Fill(nint destination, byte value, long bytes)
    {
        _afterKernel = false;
        try
        {
            _stream.Fill((ulong)destination, value, bytes);
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error);
        }
    }

    /// <summary>Copies device memory to page-locked memory; it is there once the stream has been waited for.</summary>
    public void CopyToHost(void* destination, nint source, long bytes)
    {
        _afterKernel = false;
        try
        {
            _stream.CopyToHost(destination, (ulong)source, bytes);
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error);
        }
    }

    /// <summary>Waits until everything has run.</summary>
    public void Synchronize()
    {
        try
        {
            _stream.Synchronize();
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error);
        }
    }

    /// <summary>Marks the present end of the stream.</summary>
    public void Record(CudaEvent mark)
    {
        _afterKernel = false;
        try
        {
            mark.Record(_stream);
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error);
        }
    }

    /// <summary>Lets what follows wait on the device for a mark of another stream.</summary>
    public void WaitOnDevice(CudaEvent mark)
    {
        _afterKernel = false;
        try
        {
            _stream.Wait(mark);
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error);
        }
    }

    /// <summary>Starts to record what is launched instead of running it. Errors are the driver's: a recording can be done without.</summary>
    /// <exception cref="CudaException">The driver does not record.</exception>
    public void BeginCapture()
    {
        _afterKernel = false;
        _stream.BeginCapture();
    }

    /// <summary>Ends recording.</summary>
    /// <exception cref="CudaException">The recording was broken by an error.</exception>
    public CudaGraph EndCapture()
    {
        _afterKernel = false;
        return _stream.EndCapture();
    }

    /// <summary>Ends recording and drops what was recorded.</summary>
    public void AbandonCapture()
    {
        _afterKernel = false;
        _stream.AbandonCapture();
    }

    /// <summary>Runs a recording.</summary>
    public void Replay(CudaGraphExec graph)
    {
        _afterKernel = false;
        try
        {
            graph.Launch(_stream);
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error);
        }
    }

    /// <summary>Waits on this thread for a mark.</summary>
    public void WaitFor(CudaEvent mark)
    {
        try
        {
            mark.Synchronize();
        }
        catch (CudaException error)
        {
            throw Faults.Translate(error);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Copies.Dispose();
        _stream.Dispose();
    }
}
