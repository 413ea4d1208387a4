using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>A GPU's timer: events around the work, on its own stream.</summary>
internal sealed class EventTimer : IDeviceTimer
{
    private const long FlushBytes = 256 << 20; // several times the last-level cache of any GPU
    private readonly GpuStream _stream;
    private readonly MemoryBlock _other;
    private readonly CudaEvent _begin;
    private readonly CudaEvent _end;
    private byte _value;

    public EventTimer(GpuBackend backend)
    {
        _stream = backend.Stream;
        _stream.Enter();
        // The emulated device has no cache; there this is only memory.
        _other = backend.Allocate(CudaLibraries.IsEmulated ? 1 << 16 : FlushBytes, MemoryOwner.Workspace);
        _begin = new CudaEvent(_stream.Context, timing: true);
        _end = new CudaEvent(_stream.Context, timing: true);
    }

    public void FlushCache()
    {
        _stream.Enter();
        _stream.Fill(_other.Data, ++_value, _other.ByteLength);
    }

    public double Time(Action work)
    {
        _stream.Enter();
        _stream.Record(_begin);
        work();
        _stream.Enter();
        _stream.Record(_end);
        _stream.WaitFor(_end);
        return _end.MillisecondsSince(_begin);
    }

    public void Dispose()
    {
        _begin.Dispose();
        _end.Dispose();
        _other.Dispose();
    }
}

/// <summary>Records a pair of events around every launch and reads them once it is over, so that launching is hardly slowed.</summary>
internal sealed class EventObserver(GpuBackend backend) : IGpuObserver
{
    private readonly List<Launch> _launches = [];
    private CudaEvent? _origin;
    private Launch? _open;
    private bool _recording;

    /// <summary>Forgets what was recorded and begins.</summary>
    public void Start()
    {
        GpuStream stream = backend.Stream;
        stream.Enter();
        Release();
        _origin = new CudaEvent(stream.Context, timing: true);
        stream.Record(_origin);
        _recording = true;
        backend.Observer = this;
    }

    /// <summary>Ends and waits for what was launched.</summary>
    public IReadOnlyList<ProfileEvent> Stop()
    {
        backend.Observer = null;
        _recording = false;
        if (_origin is null) return [];
        GpuStream stream = backend.Stream;
        stream.Enter();
        stream.Synchronize();
        List<ProfileEvent> events = new(_launches.Count);
        foreach (Launch launch in _launches)
        {
            double start = launch.Begin.MillisecondsSince(_origin);
            events.Add(new ProfileEvent(launch.Name, start, launch.End.MillisecondsSince(launch.Begin), launch.Bytes, launch.Flops, false));
        }
        Release();
        return events;
    }

    public void Before(string name, long bytes, long flops, CudaStream stream)
    {
        if (!_recording) return;
        CudaContext context = backend.Stream.Context;
        _open = new Launch(name, bytes, flops, new CudaEvent(context, timing: true), new CudaEvent(context, timing: true));
        _open.Begin.Record(stream);
    }

    public void After(CudaStream stream)
    {
        if (_open is not { } launch) return;
        _open = null;
        launch.End.Record(stream);
        _launches.Add(launch);
    }

    private void Release()
    {
        foreach (Launch launch in _launches)
        {
            launch.Begin.Dispose();
            launch.End.Dispose();
        }
        _launches.Clear();
        _origin?.Dispose();
        _origin = null;
        _open = null;
    }

    private sealed record Launch(string Name, long Bytes, long Flops, CudaEvent Begin, CudaEvent End);
}
