using System.Runtime.ExceptionServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Threads that live as long as the backend. <see cref="Run"/> hands out numbered tasks to them and to the caller;
/// which thread does which task is left to chance, so tasks must not depend on it.</summary>
internal sealed class WorkerPool : IDisposable
{
    // Operations of a layer follow each other within microseconds, so a worker looks again for a moment before it sleeps.
    private const int SpinsBeforeSleep = 60;

    private readonly Thread[] _threads;
    private readonly object _gate = new();
    private Action<int, int>? _body;
    private int _count;
    private int _next;
    private int _busy;
    private int _generation;
    private bool _stop;
    private ExceptionDispatchInfo? _failure;

    /// <summary>Starts <paramref name="threads"/> - 1 threads; the caller of <see cref="Run"/> is the last one.</summary>
    public WorkerPool(int threads)
    {
        Threads = threads;
        _threads = new Thread[threads - 1];
        for (int i = 0; i < _threads.Length; i++)
        {
            int worker = i + 1;
            _threads[i] = new Thread(() => Work(worker)) { IsBackground = true, Name = $"ConvLLaVA CPU {worker}" };
            _threads[i].Start();
        }
    }

    /// <summary>Number of workers, the caller included.</summary>
    public int Threads { get; }

    /// <summary>Calls <paramref name="body"/>(task, worker) once for every task 0 .. <paramref name="count"/> - 1, with worker below
    /// <see cref="Threads"/>, and returns when all are done. The first exception of a task is rethrown here.</summary>
    public void Run(int count, Action<int, int> body)
    {
        ObjectDisposedException.ThrowIf(_stop, this);
        if (count <= 1 || _threads.Length == 0)
        {
            for (int task = 0; task < count; task++) body(task, 0);
            return;
        }
        lock (_gate)
        {
            _body = body;
            _count = count;
            _next = 0;
            _failure = null;
            _busy = _threads.Length;
            Volatile.Write(ref _generation, _generation + 1);
            Monitor.PulseAll(_gate);
        }
        DoTasks(body, count, 0);
        SpinWait spin = default;
        while (Volatile.Read(ref _busy) != 0)
        {
            if (spin.Count < SpinsBeforeSleep)
            {
                spin.SpinOnce(sleep1Threshold: -1);
                continue;
            }
            lock (_gate)
            {
                while (_busy != 0) Monitor.Wait(_gate);
            }
        }
        _body = null;
        _failure?.Throw();
    }

    private void DoTasks(Action<int, int> body, int count, int worker)
    {
        try
        {
            int task;
            while ((task = Interlocked.Increment(ref _next) - 1) < count) body(task, worker);
        }
        catch (Exception error)
        {
            Interlocked.CompareExchange(ref _failure, ExceptionDispatchInfo.Capture(error), null);
            Volatile.Write(ref _next, count);
        }
    }

    private void Work(int worker)
    {
        int seen = 0;
        while (true)
        {
            SpinWait spin = default;
            while (Volatile.Read(ref _generation) == seen && spin.Count < SpinsBeforeSleep) spin.SpinOnce(sleep1Threshold: -1);
            Action<int, int> body;
            int count;
            lock (_gate)
            {
                while (_generation == seen && !_stop) Monitor.Wait(_gate);
                if (_stop) return;
                seen = _generation;
                body = _body!;
                count = _count;
            }
            DoTasks(body, count, worker);
            if (Interlocked.Decrement(ref _busy) == 0)
            {
                lock (_gate) Monitor.PulseAll(_gate);
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_stop) return;
            _stop = true;
            Monitor.PulseAll(_gate);
        }
        foreach (Thread thread in _threads) thread.Join();
    }
}
