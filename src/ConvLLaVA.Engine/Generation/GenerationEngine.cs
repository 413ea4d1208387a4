using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.CompilerServices;
using ConvLLaVA.Engine.KvCache;
using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Engine.Generation;

/// <summary>Runs requests: one thread plans a step, has it executed, chooses tokens and sends them on, again and again.
/// Callers only ever touch their own channel.</summary>
internal sealed partial class GenerationEngine : IAsyncDisposable, IDisposable
{
    private readonly IModelRunner _runner;
    private readonly ILogger _logger;
    private readonly BlockPool _pool;
    private readonly Scheduler _scheduler;
    private readonly StepPlan _plan;
    private readonly bool _reusePrefixes;
    private readonly List<SamplingRow> _rows = []; // of the running step, in the order of its logit rows
    private readonly Action<int, int> _copyBlock;
    private readonly ConcurrentQueue<RunningSequence> _arrivals = new();
    private readonly SemaphoreSlim _wake = new(0);
    private readonly Thread _thread;
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long _lastArrival;
    private volatile bool _stopping;
    private volatile ConvLlavaException? _fault;

    /// <summary>Starts the thread.</summary>
    public GenerationEngine(IModelRunner runner, GenerationEngineOptions options, ILogger logger)
    {
        _runner = runner;
        _logger = logger;
        _pool = new BlockPool(options.Blocks, options.BlockSize);
        _scheduler = new Scheduler(_pool, options.MaxStepTokens, options.MaxSequences);
        _plan = new StepPlan(options.BlockSize);
        _reusePrefixes = options.ReusePrefixes;
        _copyBlock = runner.CopyBlock;
        _thread = new Thread(Run) { IsBackground = true, Name = "ConvLLaVA engine" };
        _thread.Start();
    }

    /// <summary>Pages in use, for tests and reports: zero when no request runs.</summary>
    public int UsedBlocks => _pool.UsedCount;

    /// <summary>Times a sequence had to give up its pages.</summary>
    public long Preemptions => _scheduler.Preemptions;

    /// <summary>Most tokens, prompt and answer together, of one sequence.</summary>
    private int LongestSequence => Math.Min(_runner.MaxPositions, _scheduler.LongestSequence);

    /// <summary>Answers a request. Ending the enumeration early, or cancelling, ends the request at the next step.</summary>
    /// <exception cref="InvalidInputException">The prompt can never fit, or an id is not in the vocabulary.</exception>
    /// <exception cref="ConvLlavaException">The engine failed or was disposed.</exception>
    public async IAsyncEnumerable<GenerationUpdate> GenerateAsync(SequenceRequest request, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        Check(request);
        using var abandoned = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        int room = LongestSequence - request.PromptTokens.Length + 1; // the last token is chosen, never processed
        var sequence = new RunningSequence(request, Interlocked.Increment(ref _lastArrival), abandoned.Token)
        {
            Answer = new AnswerState(request, Math.Min(request.Options.MaxNewTokens, room)),
        };
        if (_reusePrefixes) sequence.Keys = new PageKeys(sequence.Tokens, _pool.BlockSize, request.ImagesKey);
        try
        {
            _arrivals.Enqueue(sequence);
            _wake.Release();
            if (_stopping) FailArrivals(); // the thread may already be past its last look
            await foreach (GenerationUpdate update in sequence.Answer.Updates.ReadAllAsync(cancellation).ConfigureAwait(false)) yield return update;
        }
        finally
        {
            await abandoned.CancelAsync().ConfigureAwait(false);
            _wake.Release();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Stop();
        _thread.Join();
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        Stop();
        await _ended.Task.ConfigureAwait(false);
        _thread.Join();
    }

    private void Stop()
    {
        _stopping = true;
        _wake.Release();
    }

    private void Check(SequenceRequest request)
    {
        if (_fault is { } fault) throw fault;
        int[] prompt = request.PromptTokens;
        if (prompt.Length == 0) throw new InvalidInputException("The prompt is empty.");
        if (prompt.Length > LongestSequence)
            throw new InvalidInputException($"The prompt has {prompt.Length} tokens but there is room for {LongestSequence} (the smaller of the model's context and the KV cache).");
        foreach (int id in prompt)
        {
            if (id >= _runner.VocabularySize) throw new InvalidInputException($"The prompt holds token id {id}, but the model's vocabulary has {_runner.VocabularySize} entries.");
        }
    }

    private void Run()
    {
        try
        {
            while (!_stopping)
            {
                TakeArrivals();
                DropAbandoned();
                if (!Step()) _wake.Wait();
            }
        }
        finally
        {
            foreach (RunningSequence sequence in (RunningSequence[])[.. _scheduler.Running, .. _scheduler.Waiting]) Fail(sequence, Disposed());
            FailArrivals();
            _ended.TrySetResult();
        }
    }

    private void TakeArrivals()
    {
        while (_arrivals.TryDequeue(out RunningSequence? sequence))
        {
            if (_fault is { } fault) sequence.Answer!.Fail(fault);
            else _scheduler.Add(sequence);
        }
    }

    private void DropAbandoned()
    {
        for (int i = _scheduler.Running.Count - 1; i >= 0; i--) DropIfAbandoned(_scheduler.Running[i]);
        for (int i = _scheduler.Waiting.Count - 1; i >= 0; i--) DropIfAbandoned(_scheduler.Waiting[i]);
    }

    private void DropIfAbandoned(RunningSequence sequence)
    {
        if (sequence.Cancellation.IsCancellationRequested) Fail(sequence, new OperationCanceledException(sequence.Cancellation));
    }

    /// <summary>Runs one step; false when there is nothing to run.</summary>
    private bool Step()
    {
        try
        {
            if (!_scheduler.Plan(_plan, _copyBlock)) return false;
        }
        catch (Exception) when (FailOnFault()) // a page could not be copied
        {
            return true;
        }
        if (!EncodeNewImages()) return true; // somebody left: plan anew

        FillSampling();
        long started = Stopwatch.GetTimestamp();
        try
        {
            foreach (RunningSequence sequence in _plan.Sequences) sequence.Answer!.Start();
            _runner.Forward(_plan);
        }
        catch (Exception error)
        {
            if (FailOnFault()) return true;
            LogStepFailed(_logger, error, _plan.Sequences.Count);
            foreach (RunningSequence sequence in (RunningSequence[])[.. _plan.Sequences]) Fail(sequence, Wrapped("A step of the model failed", error));
            return true;
        }
        TakeTokens(Stopwatch.GetElapsedTime(started));
        return true;
    }

    private bool EncodeNewImages()
    {
        foreach (RunningSequence sequence in (RunningSequence[])[.. _plan.Sequences])
        {
            if (sequence.Request.Images is null || sequence.Features is not null || !sequence.NeedsImages) continue;
            sequence.Answer!.Start();
            long started = Stopwatch.GetTimestamp();
            try
            {
                _runner.EncodeImages(sequence);
            }
            catch (Exception error)
            {
                if (FailOnFault()) return false;
                Fail(sequence, error is OperationCanceledException ? error : Wrapped("The images could not be encoded", error));
                return false;
            }
            sequence.Answer.EncodeTime = Stopwatch.GetElapsedTime(started);
        }
        return true;
    }

    private void FillSampling()
    {
        _rows.Clear();
        for (int s = 0; s < _plan.Sequences.Count; s++)
        {
            RunningSequence sequence = _plan.Sequences[s];
            if (_plan.WantsToken(s)) _rows.Add(new SamplingRow(sequence.Request.Options, sequence.Answer!.Sampling));
        }
        SamplingRows.Fill(_plan.Batch.Sampling, _rows, _runner.VocabularySize);
    }

    private void TakeTokens(TimeSpan elapsed)
    {
        int output = 0;
        for (int s = 0; s < _plan.Sequences.Count; s++)
        {
            RunningSequence sequence = _plan.Sequences[s];
            AnswerState answer = sequence.Answer!;
            if (sequence.Generated == 0) answer.PrefillTime += elapsed;
            answer.ReusedTokens = sequence.Reused;
            if (!_plan.Complete(s)) continue;
            try
            {
                int row = output++, id = SamplingRows.Take(_plan.Batch.Sampling, row, _rows[row], out LogProbEntry? entry);
                sequence.Tokens.Add(id);
                if (answer.Append(id, entry)) Release(sequence); // before the caller can see the end
                answer.Send();
            }
            catch (Exception error)
            {
                Fail(sequence, Wrapped("Choosing a token failed", error));
            }
        }
    }

    /// <summary>Once the device is broken no request can go on: all end with the same sentence and new ones are refused with it.</summary>
    /// <returns>False when the device is well.</returns>
    private bool FailOnFault()
    {
        if (_runner.Fault is not { } fault) return false;
        _fault = fault;
        LogFaulted(_logger, fault, _scheduler.Running.Count + _scheduler.Waiting.Count);
        foreach (RunningSequence sequence in (RunningSequence[])[.. _scheduler.Running, .. _scheduler.Waiting]) Fail(sequence, fault);
        return true;
    }

    private void Fail(RunningSequence sequence, Exception error)
    {
        Release(sequence);
        sequence.Answer!.Fail(error);
    }

    private void Release(RunningSequence sequence)
    {
        _scheduler.Remove(sequence);
        _runner.ReleaseImages(sequence);
    }

    private void FailArrivals()
    {
        while (_arrivals.TryDequeue(out RunningSequence? sequence)) sequence.Answer!.Fail(Disposed());
    }

    private static ConvLlavaException Wrapped(string what, Exception error)
        => error as ConvLlavaException ?? new ConvLlavaException($"{what}: {error.Message}", error);

    private static ConvLlavaException Disposed() => new("The engine was disposed before the answer was finished.");

    [LoggerMessage(EventId = 200, Level = LogLevel.Error, Message = "A step of {Sequences} sequence(s) failed; they end with an error and the engine goes on.")]
    private static partial void LogStepFailed(ILogger logger, Exception error, int sequences);

    [LoggerMessage(EventId = 201, Level = LogLevel.Error, Message = "The device failed; {Sequences} sequence(s) end with an error and no new ones are taken.")]
    private static partial void LogFaulted(ILogger logger, Exception error, int sequences);
}
