using ConvLLaVA.Engine.KvCache;

namespace ConvLLaVA.Engine.Generation;

/// <summary>Decides which tokens of which requests run in each step. Pure bookkeeping over page and token counts: no tensors,
/// no clock, no threads.
/// <para>Decoding sequences go first, one token each, then prompts in pieces, all in order of arrival, within a budget of tokens
/// and sequences. A request is admitted, strictly in order of arrival, once pages for its whole text are free; pages at its start that another sequence has
/// written already are shared. When a decoding
/// sequence finds no page, the latest arrival gives up its pages and waits to be computed again; an earlier request is never
/// set back for a later one, so the oldest always finishes and nobody starves.</para></summary>
internal sealed class Scheduler
{
    private readonly BlockPool _pool;
    private readonly int _maxStepTokens;
    private readonly int _maxSequences;
    private readonly List<RunningSequence> _running = []; // by arrival
    private readonly List<RunningSequence> _waiting = []; // by arrival

    /// <summary>Creates a scheduler over <paramref name="pool"/>.</summary>
    public Scheduler(BlockPool pool, int maxStepTokens, int maxSequences)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(maxStepTokens, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(maxSequences, 1);
        _pool = pool;
        _maxStepTokens = maxStepTokens;
        _maxSequences = maxSequences;
    }

    /// <summary>Sequences that hold pages, by arrival.</summary>
    public IReadOnlyList<RunningSequence> Running => _running;

    /// <summary>Sequences that wait for pages, by arrival.</summary>
    public IReadOnlyList<RunningSequence> Waiting => _waiting;

    /// <summary>Most tokens, prompt and answer together, that fit when a sequence has all pages to itself.</summary>
    public int LongestSequence => _pool.Capacity * _pool.BlockSize;

    /// <summary>Times a sequence had to give up its pages.</summary>
    public long Preemptions { get; private set; }

    /// <summary>Takes a request in.</summary>
    /// <exception cref="InvalidInputException">Its prompt does not fit even alone: it would wait forever.</exception>
    public void Add(RunningSequence sequence)
    {
        if (sequence.Tokens.Count > LongestSequence)
            throw new InvalidInputException($"The prompt has {sequence.Tokens.Count} tokens but the KV cache has room for {LongestSequence}.");
        InsertByArrival(_waiting, sequence);
    }

    /// <summary>Plans the next step.</summary>
    /// <param name="plan">Receives it.</param>
    /// <param name="copyBlock">Told of each page to copy before the step: from, to.</param>
    /// <returns>False when nothing can run, which is only when there are no requests.</returns>
    public bool Plan(StepPlan plan, Action<int, int> copyBlock)
    {
        plan.Clear();
        long before = Preemptions;
        for (int i = 0; i < _running.Count && plan.TokenCount < _maxStepTokens; i++)
        {
            RunningSequence sequence = _running[i];
            if (sequence.Pending == 1 && MakeWritable(sequence, copyBlock)) plan.Add(sequence, 1);
        }
        for (int i = 0; i < _running.Count && plan.TokenCount < _maxStepTokens; i++)
        {
            RunningSequence sequence = _running[i];
            if (sequence.Pending > 1) plan.Add(sequence, Math.Min(sequence.Pending, _maxStepTokens - plan.TokenCount));
        }
        if (Preemptions == before) Admit(plan);
        if (plan.TokenCount == 0) return false;
        plan.Build();
        return true;
    }

    /// <summary>Ends a sequence, whatever it is doing, and frees its pages.</summary>
    public void Remove(RunningSequence sequence)
    {
        if (!_running.Remove(sequence)) _waiting.Remove(sequence);
        sequence.Table?.Release();
        sequence.Table = null;
    }

    private void Admit(StepPlan plan)
    {
        while (_waiting.Count > 0 && _running.Count < _maxSequences && plan.TokenCount < _maxStepTokens)
        {
            RunningSequence sequence = _waiting[0];
            (int found, int kept) = FindPages(sequence);
            // Pages for the whole text are taken at once, so that half-processed prompts never block each other.
            if (_pool.BlocksFor(sequence.Tokens.Count) - found + kept > _pool.FreeCount) return;
            _waiting.RemoveAt(0);
            sequence.Table = new BlockTable(_pool);
            for (int page = 0; page < found; page++)
            {
                if (_pool.TryFind(sequence.Keys!.Of(page), out int block)) sequence.Table.Reuse(block);
            }
            sequence.Computed = found * _pool.BlockSize;
            if (sequence.Generated == 0) sequence.Reused = sequence.Computed;
            sequence.Table.Prepare(sequence.Computed, sequence.Tokens.Count, static (_, _) => { });
            InsertByArrival(_running, sequence);
            plan.Add(sequence, Math.Min(sequence.Pending, _maxStepTokens - plan.TokenCount));
        }
    }

    /// <summary>Counts the pages at the start of a text that are written already. The last token is always computed: its logits are
    /// wanted.</summary>
    /// <returns>How many there are, and how many of them nobody holds, so that holding them takes room.</returns>
    private (int Found, int Kept) FindPages(RunningSequence sequence)
    {
        int found = 0, kept = 0;
        if (sequence.Keys is not { } keys) return (0, 0);
        int most = (sequence.Tokens.Count - 1) / _pool.BlockSize;
        for (; found < most && _pool.TryFind(keys.Of(found), out int block); found++)
        {
            if (_pool.ReferencesOf(block) == 0) kept++;
        }
        return (found, kept);
    }

    /// <summary>Gets a decoding sequence the page for its next token, at the cost of later arrivals.</summary>
    private bool MakeWritable(RunningSequence sequence, Action<int, int> copyBlock)
    {
        while (sequence.Table!.BlocksNeeded(sequence.Computed, sequence.Tokens.Count) > _pool.FreeCount)
        {
            RunningSequence latest = _running[^1];
            Preempt(latest);
            if (latest == sequence) return false;
        }
        sequence.Table.Prepare(sequence.Computed, sequence.Tokens.Count, copyBlock);
        return true;
    }

    private void Preempt(RunningSequence sequence)
    {
        _running.Remove(sequence);
        sequence.Table!.Release();
        sequence.Table = null;
        sequence.Computed = 0;
        InsertByArrival(_waiting, sequence);
        Preemptions++;
    }

    private static void InsertByArrival(List<RunningSequence> list, RunningSequence sequence)
    {
        int index = list.Count;
        while (index > 0 && list[index - 1].Arrival > sequence.Arrival) index--;
        list.Insert(index, sequence);
    }
}
