using BenchmarkDotNet.Attributes;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.KvCache;

namespace ConvLLaVA.Bench.Micro;

/// <summary>Planning one decoding step: what the host adds to every token, whatever the device. Should allocate nothing.</summary>
[MemoryDiagnoser]
public class SchedulerBenchmarks
{
    private readonly StepPlan _plan = new(16);
    private Scheduler _scheduler = null!;
    private RunningSequence[] _sequences = [];

    /// <summary>Sequences that decode together.</summary>
    [Params(1, 16, 64)]
    public int Sequences { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        var pool = new BlockPool((Sequences * 64) + 1, 16);
        _scheduler = new Scheduler(pool, 512, Sequences);
        _sequences = [.. Enumerable.Range(0, Sequences).Select(i => new RunningSequence(new SequenceRequest { PromptTokens = [.. Enumerable.Range(0, 700)], Decoder = new Silent() }, i, default))];
        foreach (RunningSequence sequence in _sequences) _scheduler.Add(sequence);
        // Prompts are processed first, in pieces; afterwards every sequence has one pending token.
        while (_sequences.Any(sequence => sequence.Pending != 1))
        {
            if (!_scheduler.Plan(_plan, static (_, _) => { })) throw new InvalidOperationException("Nothing to plan.");
            for (int s = 0; s < _plan.Sequences.Count; s++)
            {
                if (_plan.Complete(s)) _plan.Sequences[s].Tokens.Add(1);
            }
        }
    }

    /// <summary>Plans the step of all sequences. Nothing is booked, so every call plans the same one.</summary>
    [Benchmark]
    public bool Plan() => _scheduler.Plan(_plan, static (_, _) => { });

    private sealed class Silent : ITextDecoder
    {
        public string Append(int id) => "";

        public string Flush() => "";
    }
}
