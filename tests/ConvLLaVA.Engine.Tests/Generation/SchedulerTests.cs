using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.KvCache;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Generation;

/// <summary>The scheduler against random workloads: requests of any length that come and are cancelled at any step, few pages, small
/// steps.</summary>
public sealed class SchedulerTests
{
    [Fact]
    public void Any_workload_keeps_the_promises()
    {
        Gen<(int Blocks, int BlockSize, int Budget, int MaxSequences)> limits =
            from blocks in Gen.Choose(2, 12)
            from blockSize in Gen.Choose(1, 5)
            from budget in Gen.Choose(1, 14)
            from sequences in Gen.Choose(1, 6)
            select (blocks, blockSize, budget, sequences);
        Gen<Job> job =
            from gap in Gen.Choose(0, 4)
            from prompt in Gen.Choose(1, 40)
            from answer in Gen.Choose(1, 20)
            from cancel in Gen.Choose(0, 60)
            select new Job(gap, prompt, answer, cancel < 30 ? cancel : int.MaxValue);
        Gen<((int Blocks, int BlockSize, int Budget, int MaxSequences) Limits, Job[] Jobs)> workload =
            from l in limits
            from jobs in job.ArrayOf(14)
            select (l, jobs);
        int preemptions = 0, refusals = 0;
        Prop.ForAll(workload.ToArbitrary(), w =>
        {
            var run = new Workload(w.Limits.Blocks, w.Limits.BlockSize, w.Limits.Budget, w.Limits.MaxSequences, w.Jobs);
            run.ToTheEnd();
            preemptions += (int)run.Preemptions;
            refusals += run.Refusals;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(600));
        Assert.True(preemptions > 100 && refusals > 100, $"{preemptions} preemptions, {refusals} refusals: the workloads prove little");
    }

    [Fact]
    public void The_oldest_goes_on_however_many_arrive()
    {
        // A long prompt, and for each step of it a newcomer that would take the whole step.
        Job[] jobs = [new(0, 30, 5, int.MaxValue), .. Enumerable.Repeat(new Job(1, 4, 1, int.MaxValue), 200)];
        var run = new Workload(blocks: 10, blockSize: 4, budget: 4, maxSequences: 3, jobs);
        run.ToTheEnd();
        Assert.Equal(jobs.Length, run.Finished.Count);
        Assert.Equal(7 + 4, run.Finished.Single(end => end.Job == 0).Step); // steps 0 to 7 take the prompt, the last of them gives the first of 5 tokens
    }

    [Fact]
    public void A_request_that_can_never_fit_is_refused_at_once()
    {
        var pool = new BlockPool(4, 16);
        var scheduler = new Scheduler(pool, 8, 2);
        Assert.Equal(48, scheduler.LongestSequence);
        Assert.Contains("49 tokens", Assert.Throws<InvalidInputException>(() => scheduler.Add(Sequence(49, 0))).Message, StringComparison.Ordinal);
        Assert.Empty(scheduler.Waiting);
        scheduler.Add(Sequence(48, 1));
        Assert.True(scheduler.Plan(new StepPlan(16), (_, _) => { }));
    }

    [Fact]
    public void Nothing_is_planned_when_nobody_asks() => Assert.False(new Scheduler(new BlockPool(4, 16), 8, 2).Plan(new StepPlan(16), (_, _) => { }));

    [Fact]
    public void Removing_somebody_unknown_changes_nothing()
    {
        var pool = new BlockPool(4, 16);
        var scheduler = new Scheduler(pool, 8, 2);
        RunningSequence sequence = Sequence(3, 0);
        scheduler.Remove(sequence);
        scheduler.Add(sequence);
        scheduler.Plan(new StepPlan(16), (_, _) => { });
        scheduler.Remove(sequence);
        scheduler.Remove(sequence);
        Assert.Equal(0, pool.UsedCount);
    }

    private static RunningSequence Sequence(int prompt, long arrival) => new(
        new SequenceRequest { PromptTokens = [.. Enumerable.Range(0, prompt).Select(i => (int)(arrival * 1000) + i)], Decoder = new NoText() }, arrival, CancellationToken.None);

    /// <summary>A request: steps after the one before, tokens of prompt and answer, steps until it is cancelled.</summary>
    private sealed record Job(int Gap, int Prompt, int Answer, int CancelAfter);

    /// <summary>Runs jobs step by step and checks every promise at each.</summary>
    private sealed class Workload
    {
        private readonly BlockPool _pool;
        private readonly Scheduler _scheduler;
        private readonly StepPlan _plan;
        private readonly int _budget, _maxSequences, _blockSize;
        private readonly Dictionary<int, (long Owner, int Token)> _memory = []; // by slot
        private readonly List<(RunningSequence Sequence, Job Job, int Since)> _live = [];
        private readonly Queue<(int Step, int Index, Job Job)> _coming = new();
        private int _step;

        public Workload(int blocks, int blockSize, int budget, int maxSequences, IReadOnlyList<Job> jobs)
        {
            (_budget, _maxSequences, _blockSize) = (budget, maxSequences, blockSize);
            _pool = new BlockPool(blocks, blockSize);
            _scheduler = new Scheduler(_pool, budget, maxSequences);
            _plan = new StepPlan(blockSize);
            for (int i = 0, at = 0; i < jobs.Count; i++) _coming.Enqueue((at += jobs[i].Gap, i, jobs[i]));
        }

        public long Preemptions => _scheduler.Preemptions;

        public int Refusals { get; private set; }

        /// <summary>The jobs that came to their end, and the step, counted from 0, of their last token.</summary>
        public List<(int Job, int Step)> Finished { get; } = [];

        public void ToTheEnd()
        {
            // (13) everybody ends: no workload here needs more steps than this, each preemption's repetition included.
            for (_step = 0; _coming.Count > 0 || _live.Count > 0; _step++)
            {
                Assert.True(_step < 20_000, "the workload does not end");
                Arrive();
                Cancel();
                Step();
            }
            Assert.Equal(0, _pool.UsedCount);
            Assert.Empty(_scheduler.Running);
            Assert.Empty(_scheduler.Waiting);
            Assert.False(_scheduler.Plan(_plan, (_, _) => { }));
        }

        private void Arrive()
        {
            while (_coming.TryPeek(out (int Step, int Index, Job Job) next) && next.Step <= _step)
            {
                _coming.Dequeue();
                RunningSequence sequence = Sequence(next.Job.Prompt, next.Index);
                if (next.Job.Prompt > _scheduler.LongestSequence)
                {
                    // (15) at once, and it leaves no trace.
                    Assert.Throws<InvalidInputException>(() => _scheduler.Add(sequence));
                    Refusals++;
                    continue;
                }
                _scheduler.Add(sequence);
                _live.Add((sequence, next.Job, _step));
            }
        }

        private void Cancel()
        {
            foreach ((RunningSequence sequence, Job job, int since) in _live.Where(entry => _step - entry.Since >= entry.Job.CancelAfter).ToArray())
            {
                End(sequence);
                Assert.Null(sequence.Table);
            }
        }

        private void Step()
        {
            HashSet<RunningSequence> running = [.. _scheduler.Running];
            bool planned = _scheduler.Plan(_plan, (_, _) => { });
            Assert.Equal(_live.Count > 0, planned);
            if (!planned) return;

            // (11) within budget and number of sequences.
            Assert.InRange(_plan.TokenCount, 1, _budget);
            Assert.InRange(_scheduler.Running.Count, 1, _maxSequences);
            // (12) the oldest is served in every single step, so none waits forever.
            Assert.Contains(_live[0].Sequence, _plan.Sequences);
            // (14) nobody who came earlier gives way to a later one.
            if (_scheduler.Waiting.Count > 0) Assert.True(_scheduler.Running[^1].Arrival < _scheduler.Waiting[0].Arrival);
            foreach (RunningSequence waiting in _scheduler.Waiting) Assert.Null(waiting.Table);
            CheckPages();
            CheckBatch();
            Assert.All(running.Where(sequence => !_scheduler.Running.Contains(sequence)), sequence => Assert.Equal(0, sequence.Computed));
            Complete();
        }

        private void CheckPages()
        {
            int[] held = [.. _scheduler.Running.SelectMany(sequence => sequence.Table!.Blocks)];
            Assert.Equal(held.Length, held.Distinct().Count());
            Assert.Equal(held.Length, _pool.UsedCount);
        }

        /// <summary>The batch says where each token goes, and every earlier token of its sequence is where the tables say.</summary>
        private void CheckBatch()
        {
            Assert.Equal(_plan.Sequences.Count, _plan.Sequences.Distinct().Count());
            int row = 0, outputs = 0;
            for (int s = 0; s < _plan.Sequences.Count; s++)
            {
                RunningSequence sequence = _plan.Sequences[s];
                int count = _plan.CountOf(s), end = sequence.Computed + count;
                Assert.Equal(row, _plan.Batch.QueryStarts[s]);
                Assert.Equal(end, _plan.Batch.ContextLengths[s]);
                for (int position = sequence.Computed; position < end; position++, row++)
                {
                    Assert.Equal(sequence.Tokens[position], _plan.Batch.TokenIds[row]);
                    Assert.Equal(position, _plan.Batch.Positions[row]);
                    _memory[_plan.Batch.Slots[row]] = (sequence.Arrival, sequence.Tokens[position]);
                }
                for (int position = 0; position < end; position++)
                {
                    int block = _plan.Batch.BlockTables[(s * _plan.Batch.MaxBlocks) + (position / _blockSize)];
                    Assert.Equal((sequence.Arrival, sequence.Tokens[position]), _memory[(block * _blockSize) + (position % _blockSize)]);
                }
                if (end == sequence.Tokens.Count) Assert.Equal(row - 1, _plan.Batch.LogitRows[outputs++]);
            }
            Assert.Equal((_plan.TokenCount, _plan.TokenCount, _plan.Sequences.Count, outputs), (row, _plan.Batch.TokenCount, _plan.Batch.SequenceCount, _plan.Batch.LogitCount));
        }

        private void Complete()
        {
            RunningSequence[] planned = [.. _plan.Sequences];
            for (int s = 0; s < planned.Length; s++)
            {
                if (!_plan.Complete(s)) continue;
                RunningSequence sequence = planned[s];
                sequence.Tokens.Add(-_step);
                Job job = _live.Single(entry => entry.Sequence == sequence).Job;
                if (sequence.Generated < job.Answer && sequence.Tokens.Count <= _scheduler.LongestSequence) continue;
                Finished.Add(((int)sequence.Arrival, _step));
                End(sequence);
            }
        }

        private void End(RunningSequence sequence)
        {
            _scheduler.Remove(sequence);
            _live.RemoveAll(entry => entry.Sequence == sequence);
        }
    }

    private sealed class NoText : ITextDecoder
    {
        public string Append(int id) => "";

        public string Flush() => "";
    }
}
