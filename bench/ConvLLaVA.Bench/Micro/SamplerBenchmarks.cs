using BenchmarkDotNet.Attributes;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Bench.Micro;

/// <summary>Choosing a token out of 32000 on the host.</summary>
[MemoryDiagnoser]
public class SamplerBenchmarks
{
    private const int Vocabulary = 32000;
    private readonly Sampler _sampler = new();
    private readonly float[] _logits = new float[Vocabulary];
    private readonly float[] _scratch = new float[Vocabulary];
    private readonly SamplingBatch _batch = new();
    private SamplerState _state = new(1);

    [GlobalSetup]
    public void Setup()
    {
        var random = new Random(1);
        for (int i = 0; i < Vocabulary; i++) _logits[i] = (float)((random.NextDouble() + random.NextDouble() + random.NextDouble() - 1.5) * 8);
    }

    [IterationSetup(Targets = [nameof(Penalised)])]
    public void Remember()
    {
        _state = new SamplerState(1);
        for (int id = 0; id < 200; id++) _state.Book(id * 7, drawn: false);
    }

    [Benchmark(Baseline = true)]
    public int Greedy() => Choose(new GenerationOptions());

    [Benchmark]
    public int TopK() => Choose(Options with { TopK = 50, TopP = 1 });

    [Benchmark]
    public int TopP() => Choose(Options with { TopK = 0, TopP = 0.9f });

    [Benchmark]
    public int Penalised() => Choose(Options with { TopK = 50, RepetitionPenalty = 1.1f });

    [Benchmark]
    public int GreedyWithLogProbs() => Choose(new GenerationOptions { LogProbs = true, TopLogProbs = 5 });

    private static readonly GenerationOptions Options = new() { Temperature = 0.7f };

    private int Choose(GenerationOptions options)
    {
        _logits.CopyTo(_scratch, 0); // the sampler changes them
        var row = new SamplingRow(options, _state);
        SamplingRows.Fill(_batch, [row], Vocabulary);
        _sampler.Choose(_scratch, _batch, 0);
        return SamplingRows.Take(_batch, 0, row, out _);
    }
}
