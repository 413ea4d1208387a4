using System.Diagnostics;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Peers;

/// <summary>Every operation of this engine alone, with a cold cache: the points of the roofline.</summary>
internal sealed class OperationStage(PeerOptions options, PeerRecord record, Action<string> say)
{
    private const int Prompt = 512;

    public void Run()
    {
        record.Operations.Clear();
        say("operations");
        using (EngineEncoder encoder = EncoderStage.Open(options, DType.Float32)) Observe("encoder fp32", encoder.RunOn);
        Language("bf16", new LoadOptions { WeightType = DType.BFloat16 });
        Language("q8", new LoadOptions { Quantize = new QuantOptions(QuantFormat.Q8, LmHead: true) });
        Language("q4", new LoadOptions { Quantize = new QuantOptions(QuantFormat.Q4, LmHead: true) });
    }

    private void Language(string name, LoadOptions load)
    {
        using EngineLlama llama = LlamaStage.Open(options, load, Prompt + 1);
        int[] prompt = LlamaStage.Tokens[..Prompt], next = LlamaStage.Tokens[Prompt..(Prompt + 1)];
        Observe("prefill " + name, backend => llama.FeedOn(backend, prompt));
        llama.Feed(prompt);
        Observe("decode " + name, backend => llama.FeedOn(backend, next));
    }

    private void Observe(string part, Action<Func<IBackend, IBackend>> run)
    {
        using var timer = new StopwatchTimer();
        var observer = new Observer(timer);
        run(backend => new ObservedBackend(backend, observer, ownsInner: false));
        foreach ((OperationCost cost, Timing time) in observer.Seen)
        {
            record.Operations.Add(new OperationTime(part, cost.Described, time.Median, cost.Bytes, cost.Flops));
            say($"  {part}: {cost.Described} {time.Median:F3} ms, {cost.Flops / time.Median / 1e6:F1} Gflop/s, {cost.Bytes / time.Median / 1e6:F1} GB/s");
        }
    }

    /// <summary>Times each shape of an operation when it first comes up; what follows is run once.</summary>
    private sealed class Observer(IDeviceTimer timer) : IOperationObserver
    {
        private static readonly TimeSpan Each = TimeSpan.FromMilliseconds(300);
        private static readonly TimeSpan Most = TimeSpan.FromSeconds(2);

        public Dictionary<OperationCost, Timing> Seen { get; } = [];

        public void Observe(OperationCost cost, Action operation)
        {
            if (Seen.ContainsKey(cost))
            {
                operation();
                return;
            }
            long started = Stopwatch.GetTimestamp();
            operation();
            // An operation of seconds is not run five times over.
            if (Stopwatch.GetElapsedTime(started) > Most / 3) Seen.Add(cost, Timing.Of([timer.Time(operation)]));
            else Seen.Add(cost, Timing.Measure(timer, operation, 15, Each, warmup: 0));
        }

        public void ObserveStep(PagedBatch batch, Action step) => step();
    }
}
