using ConvLLaVA.Cuda;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>The stream that uploads go over: the copy engine takes them while kernels run. Two events order it with the stream of the
/// kernels: an upload begins when all work before it is done, for it may overwrite what that still reads, and work after it waits
/// until everything has arrived.</summary>
internal sealed unsafe class CopyStream : IDisposable
{
    private readonly GpuStream _compute;
    private readonly CudaStream _stream;
    private readonly CudaEvent _free;
    private readonly CudaEvent _arrived;

    /// <summary>A copy stream beside <paramref name="compute"/>, whose context is current.</summary>
    public CopyStream(GpuStream compute)
    {
        _compute = compute;
        CudaStream? stream = null;
        CudaEvent? free = null;
        try
        {
            stream = new CudaStream(compute.Context);
            free = new CudaEvent(compute.Context);
            _arrived = new CudaEvent(compute.Context);
            (_stream, _free) = (stream, free);
        }
        catch (CudaException error)
        {
            free?.Dispose();
            stream?.Dispose();
            throw compute.Faults.Translate(error);
        }
    }

    /// <summary>Begins an upload; until it is disposed nothing else may be launched.</summary>
    public Upload Begin()
    {
        _compute.Record(_free);
        try
        {
            _stream.Wait(_free);
        }
        catch (CudaException error)
        {
            throw _compute.Faults.Translate(error);
        }
        return new Upload(this);
    }

    /// <summary>Waits until every upload has arrived.</summary>
    public void Synchronize()
    {
        try
        {
            _stream.Synchronize();
        }
        catch (CudaException error)
        {
            throw _compute.Faults.Translate(error);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _arrived.Dispose();
        _free.Dispose();
        _stream.Dispose();
    }

    /// <summary>Copies that belong together; the kernels' stream waits for all of them once it is disposed.</summary>
    public readonly ref struct Upload
    {
        private readonly CopyStream _copies;

        internal Upload(CopyStream copies) => _copies = copies;

        /// <summary>Copies page-locked host memory to the device, unchanged until <paramref name="copied"/>, which is recorded behind the
        /// copy, has happened.</summary>
        public void Copy(nint destination, void* source, long bytes, CudaEvent copied)
        {
            try
            {
                _copies._stream.CopyToDevice((ulong)destination, source, bytes);
                copied.Record(_copies._stream);
            }
            catch (CudaException error)
            {
                throw _copies._compute.Faults.Translate(error);
            }
        }

        /// <summary>Ends the upload.</summary>
        public void Dispose()
        {
            try
            {
                _copies._arrived.Record(_copies._stream);
            }
            catch (CudaException error)
            {
                throw _copies._compute.Faults.Translate(error);
            }
            _copies._compute.WaitOnDevice(_copies._arrived);
        }
    }
}
