using System.Diagnostics;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>Measures a model on a device: first whether its results are right, then the ceilings, then the times.</summary>
public sealed class Benchmark
{
    private BenchPlan _plan;
    private LoadOptions _options;
    private readonly Action<string> _say;
    private readonly List<BenchRow> _rows = [];
    private Ceilings? _ceilings;

    /// <summary>Decides what to measure.</summary>
    /// <param name="plan">What.</param>
    /// <param name="options">Where.</param>
    /// <param name="say">Told what is being done, or null.</param>
    /// <exception cref="InvalidInputException">The plan cannot be carried out.</exception>
    public Benchmark(BenchPlan plan, LoadOptions options, Action<string>? say = null)
    {
        plan.Validate();
        _plan = plan;
        _options = options;
        _say = say ?? (_ => { });
    }

    /// <summary>Told what is known after each kind, so that an end before the end loses little.</summary>
    public Action<BenchReport>? Partial { get; init; }

    /// <summary>Measures.</summary>
    /// <exception cref="ConvLlavaException">An operation gives wrong results, so that its times mean nothing.</exception>
    public async Task<BenchReport> RunAsync(CancellationToken cancellation = default)
    {
        BenchMemory? memory = null;
        string backend = "";
        if (_plan.Kinds.Contains("load"))
        {
            _say($"loading {_plan.Model} as a program would, and answering once");
            (memory, backend) = await LoadMeasurement.RunAsync(_plan.Model, _options, _rows, cancellation).ConfigureAwait(false);
        }
        (DType type, SyntheticPreset sizes) = Describe(_plan.Model, _options);
        _plan = _plan.For(sizes.MaxPositions);
        // One step takes the longest prompt whole; pages are this benchmark's own, so the engine needs few.
        _options = _options with
        {
            MaxStepTokens = Math.Max(_options.MaxStepTokens, _plan.Prompts!.Max()),
            MaxSequences = _plan.Sequences.Max(),
            KvCacheTokens = _options.KvCacheTokens ?? Math.Min(2048, sizes.MaxPositions),
            ReusePrefixes = false, // every run computes its whole prompt
        };
        _say("checking operations against the reference");
        var selftest = new Selftest(_options with { WeightType = type, Profiler = null }, sizes, small: true);
        IReadOnlyList<SelftestCheck> checks = selftest.Run(null, cancellation);
        if (checks.FirstOrDefault(check => !check.Passed) is { } bad)
            throw new ConvLlavaException($"The operation {bad.Name} ({bad.Shape}) gives wrong results ({bad.Failure ?? $"error {bad.Error:0.0e-0}, allowed {bad.Tolerance:0.0e-0}"}), so that times mean nothing; 'convllava selftest' says more.");

        _say("measuring copy bandwidth and matrix-product rate");
        _ceilings = MeasureCeilings(type, sizes, _options);

        string[] kinds = [.. _plan.Kinds.Where(kind => kind != "load")];
        if (memory is not null) Partial?.Invoke(Report());
        if (kinds.Length == 0) return Report();
        _say($"loading {_plan.Model}");
        await using ConvLlava engine = await ConvLlava.LoadAsync(_plan.Model, _options, null, cancellation).ConfigureAwait(false);
        backend = engine.BackendName;
        using IDeviceTimer timer = InstrumentBackend.TimerOf(engine.Backend);
        var session = new BenchSession(engine, timer, _plan, _ceilings, _rows, _say, cancellation);
        foreach (string kind in kinds)
        {
            cancellation.ThrowIfCancellationRequested();
            if (kind == "e2e") await EndToEndAsync(engine, cancellation).ConfigureAwait(false);
            else engine.Exclusive(() => session.Run(kind));
            Partial?.Invoke(Report());
        }
        return Report();

        BenchReport Report() => new(1, DateTimeOffset.UtcNow, _plan.Model, backend, type.Name(), typeof(Benchmark).Assembly.GetName().Version?.ToString(3) ?? "", checks.Count,
            new BenchCeilings(_ceilings.CopyGigabytesPerSecond, _ceilings.GemmTeraflopsPerSecond, _ceilings.ReadGigabytesPerSecond, _ceilings.FmaTeraflopsPerSecond), [.. _rows], memory);
    }

    /// <summary>Measures what the device can do in the precision of a model.</summary>
    /// <param name="model">The model: a folder or <c>synth:PRESET</c>.</param>
    /// <param name="options">Where.</param>
    public static Ceilings MeasureCeilings(string model, LoadOptions options)
    {
        (DType type, SyntheticPreset sizes) = Describe(model, options);
        return MeasureCeilings(type, sizes, options);
    }

    private static Ceilings MeasureCeilings(DType type, SyntheticPreset sizes, LoadOptions options)
    {
        using var device = InstrumentBackend.Open(options with { WeightType = type }, new HeadShape(sizes.HeadDim, sizes.Heads, sizes.KeyValueHeads));
        return Ceilings.Measure(device, type);
    }

    /// <summary>Precision and sizes of the model, without its weights.</summary>
    private static (DType Type, SyntheticPreset Sizes) Describe(string model, LoadOptions options)
    {
        using Checkpoint checkpoint = Checkpoint.Open(model, new CheckpointOptions { VisionTower = options.VisionTower, SyntheticType = options.WeightType ?? DType.BFloat16 });
        LlavaConfig config = checkpoint.Config;
        DType type = options.WeightType ?? checkpoint.Get(TensorNames.EmbedTokens).DType;
        var sizes = new SyntheticPreset("model", checkpoint.Preprocessor.CropSize.Height, checkpoint.Vision.Depths, checkpoint.Vision.HiddenSizes, config.NumAttentionHeads * config.HeadDim,
            config.IntermediateSize, config.NumHiddenLayers, config.NumAttentionHeads, config.NumKeyValueHeads, config.VocabSize, config.MaxPositionEmbeddings, config.MaxPositionEmbeddings);
        return (type, sizes);
    }

    /// <summary>Requests as a user makes them: picture decoding, resizing and tokenizing, sampling and text included.</summary>
    private async Task EndToEndAsync(ConvLlava engine, CancellationToken cancellation)
    {
        _say("whole requests");
        PromptRequest request = PromptRequest.Ask("Describe the image in detail.", ImageInput.FromBytes(TestPicture.Bmp(1280, 960)));
        var options = new GenerationOptions { MaxNewTokens = 32 };
        List<double> first = [], token = [], preprocess = [], encode = [], prefill = [];
        long started = Stopwatch.GetTimestamp();
        for (int i = 0; i < _plan.Runs + 1 && (i < 3 || Stopwatch.GetElapsedTime(started) < 3 * _plan.TimeEach); i++)
        {
            GenerationTimings timings = (await engine.AnswerAsync(request, options, cancellation).ConfigureAwait(false)).Timings;
            if (i == 0) continue; // warm-up
            first.Add(timings.TimeToFirstToken.TotalMilliseconds);
            preprocess.Add(timings.Preprocess.TotalMilliseconds);
            encode.Add(timings.Encode.TotalMilliseconds);
            prefill.Add(timings.Prefill.TotalMilliseconds);
            if (timings.PerToken > TimeSpan.Zero) token.Add(timings.PerToken.TotalMilliseconds);
        }
        foreach ((string name, List<double> times) in ((string, List<double>)[])[("e2e first token", first), ("e2e picture and prompt", preprocess), ("e2e encoding", encode), ("e2e prefill", prefill), ("e2e token", token)])
        {
            if (times.Count > 0) _rows.Add(BenchRow.Of(name, Timing.Of(times), 0, 0, null));
        }
    }
}
