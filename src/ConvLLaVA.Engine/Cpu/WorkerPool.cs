using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Work that can be cut into numbered items, a struct so that handing it out allocates nothing.</summary>
internal interface IWork
{
    /// <summary>Does items <paramref name="first"/> .. <paramref name="end"/> - 1 on the worker of that number.</summary>
    void Do(int first, int end, int worker);
}

/// <summary>Threads that live as long as the backend. <see cref="Run{T}(int, int, ref T)"/> hands out pieces of work to them and to the
/// caller; which thread does which is left to chance, so work must not depend on it. A worker that comes too late finds
/// nothing left and is not waited for.</summary>
internal sealed unsafe class WorkerPool : IDisposable
{
    // Operations of a layer follow each other within microseconds, so a worker looks again for a while before it sleeps: being
    // woken by the system takes about 50 microseconds. With more threads than processors, looking would keep others from work.
    private static readonly long Patience = Stopwatch.Frequency / 10_000;
    private readonly long _patience;
    private const int Apart = 32; // numbers that different threads change lie on cache lines of their own
    private readonly int[] _taken; // [threads, Apart], pieces taken from each worker's share
    private readonly Thread[] _threads;
    private readonly Sleeper[] _sleepers; // [threads - 1]
    private readonly Sleeper _caller = new();
    private delegate*<void*, int, int, int, void> _body;
    private void* _work;
    private int _count;
    private int _each;
    private int _pieces;
    private bool _stop;
    private ExceptionDispatchInfo? _failure;
    private Counters _counters;

    /// <summary>Starts <paramref name="threads"/> - 1 threads; the caller of Run is the last one.</summary>
    public WorkerPool(int threads)
    {
        Threads = threads;
        _patience = threads > Environment.ProcessorCount ? 0 : Patience;
        _taken = new int[threads * Apart];
        _threads = new Thread[threads - 1];
        _sleepers = new Sleeper[threads - 1];
        for (int i = 0; i < _threads.Length; i++)
        {
            int worker = i + 1;
            _sleepers[i] = new Sleeper();
            _threads[i] = new Thread(() => Work(worker)) { IsBackground = true, Name = $"ConvLLaVA CPU {worker}" };
            _threads[i].Start();
        }
    }

    /// <summary>Number of workers, the caller included.</summary>
    public int Threads { get; }

    /// <summary>Does items 0 .. <paramref name="count"/> - 1 in pieces of <paramref name="each"/>, with worker numbers below
    /// <see cref="Threads"/>, and returns when all are done. The first exception is rethrown here.</summary>
    public void Run<T>(int count, int each, ref T work) where T : struct, IWork
    {
        ObjectDisposedException.ThrowIf(_stop, this);
        int pieces = (int)(((long)count + each - 1) / each);
        if (pieces <= 1 || _threads.Length == 0)
        {
            // Piece by piece here too: scratch memory may be sized for one.
            for (int first = 0; first < count; first += each) work.Do(first, Math.Min(count, first + each), 0);
            return;
        }
        _body = &Do<T>;
        _work = Unsafe.AsPointer(ref work); // on the caller's stack, which waits here
        _count = count;
        _each = each;
        _pieces = pieces;
        _failure = null;
        _counters.Unfinished = pieces;
        Volatile.Write(ref _counters.Unclaimed, pieces);
        Interlocked.MemoryBarrier(); // either a worker that goes to sleep sees the pieces, or it is seen asleep here
        int helpers = Math.Min(pieces - 1, _sleepers.Length);
        for (int i = 0; i < helpers; i++) _sleepers[i].Wake();

        DoPieces(0);
        long started = 0;
        while (Volatile.Read(ref _counters.Unfinished) != 0)
        {
            if (StillPatient(ref started)) continue;
            _caller.Announce();
            if (Volatile.Read(ref _counters.Unfinished) != 0) _caller.Sleep();
            else _caller.Stay();
        }
        _work = null;
        _failure?.Throw();
    }

    /// <summary>The same for items that lie in memory one after the other and are read once: each worker takes its pieces in order from a share of its
    /// own, so that it reads one stream, and from the others' shares when its own is done.</summary>
    public void RunInShares<T>(int count, int each, ref T work) where T : struct, IWork
    {
        int pieces = (int)(((long)count + each - 1) / each);
        if (pieces <= 1 || _threads.Length == 0)
        {
            Run(count, each, ref work);
            return;
        }
        for (int worker = 0; worker < Threads; worker++) _taken[worker * Apart] = 0;
        var shared = new Shared<T>(this, count, each, pieces, Unsafe.AsPointer(ref work)); // on the caller's stack, which waits here
        Run(pieces, 1, ref shared);
    }

    /// <summary>The same with a delegate, for what is not done at every step. <paramref name="body"/> is given item and worker.</summary>
    public void Run(int count, Action<int, int> body)
    {
        var work = new Delegated(body);
        Run(count, 1, ref work);
    }

    // A claimed piece keeps the call that it belongs to from returning, so what the call has set stays valid until it is done.
    private void DoPieces(int worker)
    {
        while (true)
        {
            int left = Volatile.Read(ref _counters.Unclaimed);
            if (left == 0) return;
            if (Interlocked.CompareExchange(ref _counters.Unclaimed, left - 1, left) != left) continue;
            int first = (_pieces - left) * _each, done = 1;
            try
            {
                _body(_work, first, Math.Min(_count, first + _each), worker);
            }
            catch (Exception error)
            {
                Interlocked.CompareExchange(ref _failure, ExceptionDispatchInfo.Capture(error), null);
                done += Interlocked.Exchange(ref _counters.Unclaimed, 0);
            }
            if (Interlocked.Add(ref _counters.Unfinished, -done) == 0) _caller.Wake();
        }
    }

    private static void Do<T>(void* work, int first, int end, int worker) where T : struct, IWork
        => Unsafe.AsRef<T>(work).Do(first, end, worker);

    private void Work(int worker)
    {
        Sleeper sleeper = _sleepers[worker - 1];
        long started = 0;
        while (!Volatile.Read(ref _stop))
        {
            if (Volatile.Read(ref _counters.Unclaimed) != 0)
            {
                DoPieces(worker);
                started = 0;
                continue;
            }
            if (StillPatient(ref started)) continue;
            sleeper.Announce();
            if (Volatile.Read(ref _counters.Unclaimed) != 0 || Volatile.Read(ref _stop)) sleeper.Stay();
            else sleeper.Sleep();
            started = 0;
        }
    }

    private bool StillPatient(ref long started)
    {
        if (_patience == 0) return false;
        if (started == 0) started = Stopwatch.GetTimestamp();
        Thread.SpinWait(8);
        return Stopwatch.GetTimestamp() - started < _patience;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_stop) return;
        Volatile.Write(ref _stop, true);
        Interlocked.MemoryBarrier();
        foreach (Sleeper sleeper in _sleepers) sleeper.Wake();
        foreach (Thread thread in _threads) thread.Join();
        foreach (Sleeper sleeper in _sleepers) sleeper.Dispose();
        _caller.Dispose();
    }

    private readonly struct Delegated(Action<int, int> body) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            for (int item = first; item < end; item++) body(item, worker);
        }
    }

    private readonly struct Shared<T>(WorkerPool pool, int count, int each, int pieces, void* work) : IWork where T : struct, IWork
    {
        // There are as many calls as pieces, and each call takes one: which one is decided here.
        public void Do(int first, int end, int worker)
        {
            int piece = Take(worker);
            Unsafe.AsRef<T>(work).Do(piece * each, Math.Min(count, (piece + 1) * each), worker);
        }

        private int Take(int worker)
        {
            for (int share = worker; ; share = share + 1 == pool.Threads ? 0 : share + 1)
            {
                int start = (int)((long)pieces * share / pool.Threads), size = (int)((long)pieces * (share + 1) / pool.Threads) - start;
                ref int taken = ref pool._taken[share * Apart];
                if (Volatile.Read(ref taken) >= size) continue;
                int index = Interlocked.Increment(ref taken) - 1;
                if (index < size) return start + index;
            }
        }
    }

    /// <summary>What all threads change, each on a cache line of its own.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 384)]
    private struct Counters
    {
        [FieldOffset(128)]
        public int Unclaimed;

        [FieldOffset(256)]
        public int Unfinished;
    }

    /// <summary>Lets one thread sleep until another wakes it. A wake-up between <see cref="Announce"/> and <see cref="Sleep"/> is not lost.</summary>
    private sealed class Sleeper : IDisposable
    {
        private readonly AutoResetEvent _event = new(false);
        private int _asleep;

        /// <summary>Says that this thread is about to sleep. What it waits for must be looked at once more afterwards.</summary>
        public void Announce() => Interlocked.Exchange(ref _asleep, 1);

        /// <summary>Sleeps until woken.</summary>
        public void Sleep() => _event.WaitOne();

        /// <summary>Takes <see cref="Announce"/> back.</summary>
        public void Stay()
        {
            // Somebody may have seen it and be on the way to signal.
            if (Interlocked.Exchange(ref _asleep, 0) == 0) _event.WaitOne();
        }

        /// <summary>Wakes the thread if it sleeps; costs next to nothing when it does not.</summary>
        public void Wake()
        {
            if (Volatile.Read(ref _asleep) != 0 && Interlocked.Exchange(ref _asleep, 0) != 0) _event.Set();
        }

        public void Dispose() => _event.Dispose();
    }
}
