using System.Globalization;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Peers;

/// <summary>One decoding step at several lengths of the context, in four layers as wide as the published model's.</summary>
internal sealed class ContextStage(PeerOptions options, PeerRecord record, Action<string> say)
{
    private const string Prefix = "decode at ";
    private const int Steps = 12;
    private static readonly int[] Contexts = [128, 512, 1024, 2048, 3072, 4000];
    private static readonly int MaxTokens = Contexts[^1] + Steps;

    public void Run()
    {
        record.Times.RemoveAll(time => time.Work.StartsWith(Prefix, StringComparison.Ordinal));
        say("decoding over the length of the context");
        Ours("16 bits", "this engine bf16", new LoadOptions { WeightType = DType.BFloat16 });
        Ours("q8", "this engine q8", new LoadOptions { Quantize = new QuantOptions(QuantFormat.Q8, LmHead: true) });
        Ours("q4", "this engine q4", new LoadOptions { Quantize = new QuantOptions(QuantFormat.Q4, LmHead: true) });
        if (options.LlamaFolder is not { } folder) return;
        var library = new LlamaCpp(folder);
        Theirs(library, GgufType.F16, "16 bits", "f16");
        Theirs(library, GgufType.Q8_0, "q8", "q8_0");
        Theirs(library, GgufType.Q4_0, "q4", "q4_0");
    }

    /// <summary>Pages hold zeros where nothing was computed, and cost the same to read.</summary>
    private void Ours(string weightClass, string name, LoadOptions load)
    {
        using EngineLlama llama = LlamaStage.Open(options, load, MaxTokens);
        llama.Feed(LlamaStage.Tokens[..1]);
        foreach (int context in Contexts) Measure(weightClass, name, llama, context, () => llama.Skip(context));
    }

    private void Theirs(LlamaCpp library, GgufType type, string weightClass, string name)
    {
        using ILanguageModel llama = LlamaStage.OpenPeer(options, library, type, name, MaxTokens, say);
        llama.Feed(LlamaStage.Tokens[..1]);
        int held = 1;
        foreach (int context in Contexts)
        {
            Measure(weightClass, "llama.cpp " + name, llama, context, () =>
            {
                for (; held < context; held += Math.Min(512, context - held)) llama.Feed(LlamaStage.Tokens[..Math.Min(512, context - held)]);
            });
            held += Steps;
        }
    }

    private void Measure(string weightClass, string name, ILanguageModel model, int context, Action fill)
    {
        fill();
        var times = new List<double>();
        for (int i = 0; i < Steps; i++)
        {
            double ms = Contest.Time(() => model.Feed(LlamaStage.Tokens[..1]));
            if (i > 1) times.Add(ms);
        }
        Timing timing = Timing.Of(times);
        record.Times.Add(new PeerTime(string.Create(CultureInfo.InvariantCulture, $"{Prefix}{context}"), weightClass, name, timing, 1));
        say($"  {name} at {context}: {timing.Median:F1} ms");
    }
}
