using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.KvCache;
using ConvLLaVA.Engine.Models;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Cpu;

/// <summary>A decoding step allocates no managed memory, so that no collection ever stops one.</summary>
public sealed class DecodeAllocationTests
{
    private const int BlockSize = ModelRunner.BlockSize;

    [Theory]
    [InlineData(1, 1)]
    [InlineData(2, 1)]
    [InlineData(2, 3)]
    [InlineData(1, 20)]
    public void Step_AllocatesNothing(int threads, int sequences)
    {
        using Checkpoint checkpoint = Checkpoint.Open("synth:tiny");
        using var backend = new CpuBackend(threads);
        var model = new LlavaModel(backend, checkpoint, checkpoint.Get, checkpoint.GetVision);
        var options = new LoadOptions { Threads = threads, KvCacheTokens = 4096, MaxSequences = sequences };
        using var runner = new ModelRunner(model, backend, 128, 128, options);
        var pool = new BlockPool(runner.EngineOptions.Blocks, BlockSize);
        var scheduler = new Scheduler(pool, options.MaxStepTokens, options.MaxSequences);
        var plan = new StepPlan(BlockSize);
        Action<int, int> copy = runner.CopyBlock;
        GenerationOptions[] choices = [new(), new() { Temperature = 0.8f, Seed = 1 }, new() { Temperature = 1, TopK = 20, TopP = 0.9f, Seed = 2 }];
        var states = new Dictionary<RunningSequence, SamplerState>();
        for (int s = 0; s < sequences; s++)
        {
            int[] prompt = [.. Enumerable.Range(1, 10 + s % 5)];
            var sequence = new RunningSequence(new SequenceRequest { PromptTokens = prompt, Options = choices[s % 3], Decoder = new NoText() }, s, CancellationToken.None);
            sequence.Tokens.EnsureCapacity(200);
            states.Add(sequence, new SamplerState((ulong)s));
            scheduler.Add(sequence);
        }
        var rows = new List<SamplingRow>();

        // Past the prompt, and far enough for every list to have its size and every method its final code.
        for (int step = 0; step < 40; step++) Step();
        int measured = 0;
        for (int step = 0; step < 30; step++)
        {
            // A page more, every 16 tokens of a sequence, may lengthen lists.
            bool newPage = scheduler.Running.Any(sequence => sequence.Computed % BlockSize == 0);
            long before = GC.GetAllocatedBytesForCurrentThread();
            Step();
            long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            if (newPage) continue;
            Assert.Equal(0, allocated);
            measured++;
        }
        Assert.True(measured >= 10);

        void Step()
        {
            Assert.True(scheduler.Plan(plan, copy));
            rows.Clear();
            for (int s = 0; s < plan.Sequences.Count; s++)
            {
                if (plan.WantsToken(s)) rows.Add(new SamplingRow(plan.Sequences[s].Request.Options, states[plan.Sequences[s]]));
            }
            SamplingRows.Fill(plan.Batch.Sampling, rows, runner.VocabularySize);
            runner.Forward(plan);
            for (int s = 0, row = 0; s < plan.Sequences.Count; s++)
            {
                RunningSequence sequence = plan.Sequences[s];
                if (!plan.Complete(s)) continue;
                sequence.Tokens.Add(SamplingRows.Take(plan.Batch.Sampling, row, rows[row], out _));
                row++;
            }
        }
    }

    private sealed class NoText : ITextDecoder
    {
        public string Append(int id) => "";

        public string Flush() => "";
    }
}
