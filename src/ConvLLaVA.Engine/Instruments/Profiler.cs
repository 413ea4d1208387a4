using System.Diagnostics;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>One operation or step that was timed.</summary>
/// <param name="Name">What ran.</param>
/// <param name="StartMs">When it began, in milliseconds since recording began.</param>
/// <param name="DurationMs">How long it took.</param>
/// <param name="Bytes">Bytes it must move at least; 0 for a step.</param>
/// <param name="Flops">Floating-point operations; 0 for a step.</param>
/// <param name="IsStep">True for a step, which contains operations.</param>
public readonly record struct ProfileEvent(string Name, double StartMs, double DurationMs, long Bytes, long Flops, bool IsStep);

/// <summary>Times every operation of the requests that run while it records. Given to <see cref="LoadOptions.Profiler"/>; one profiler serves one
/// model. Recording costs a little and turns the replay of recorded steps off; a profiler that does not record costs almost nothing.</summary>
public sealed class Profiler
{
    private readonly Lock _gate = new();
    private readonly List<ProfileEvent> _events = [];
    private EventObserver? _device;
    private long _started;
    private volatile bool _recording;

    /// <summary>Forgets what was recorded and begins.</summary>
    public void Start()
    {
        lock (_gate)
        {
            _events.Clear();
            _started = Stopwatch.GetTimestamp();
            _recording = true;
            _device?.Start();
        }
    }

    /// <summary>Ends recording.</summary>
    /// <returns>What ran, in order of its end.</returns>
    public IReadOnlyList<ProfileEvent> Stop()
    {
        _recording = false;
        lock (_gate) return _device is null ? [.. _events] : _device.Stop();
    }

    /// <summary>Whether it records.</summary>
    public bool IsRecording => _recording;

    /// <summary>Puts the profiler between the engine and a backend that computes on the caller's thread; a GPU tells of its launches itself.</summary>
    internal IBackend Attach(IBackend backend)
    {
        if (backend is not GpuBackend gpu) return new ObservedBackend(backend, new StopwatchObserver(this));
        _device = new EventObserver(gpu);
        return backend;
    }

    internal void Add(ProfileEvent happened)
    {
        lock (_gate)
        {
            if (_recording) _events.Add(happened);
        }
    }

    /// <summary>Milliseconds since recording began.</summary>
    internal double Now => Stopwatch.GetElapsedTime(_started).TotalMilliseconds;

    /// <summary>Name of a step for people.</summary>
    internal static string StepName(PagedBatch batch)
        => batch.IsDecode ? $"decode step, {batch.SequenceCount} sequences" : $"step, {batch.TokenCount} tokens of {batch.SequenceCount} sequences";

    private sealed class StopwatchObserver(Profiler profiler) : IOperationObserver
    {
        public void Observe(OperationCost cost, Action operation) => Time(cost, operation, false);

        public void ObserveStep(PagedBatch batch, Action step) => Time(new OperationCost(profiler._recording ? StepName(batch) : "", 0, 0), step, true);

        private void Time(OperationCost cost, Action operation, bool isStep)
        {
            if (!profiler._recording)
            {
                operation();
                return;
            }
            double start = profiler.Now;
            operation();
            profiler.Add(new ProfileEvent(cost.Name, start, profiler.Now - start, cost.Bytes, cost.Flops, isStep));
        }
    }
}
