using System.Diagnostics;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>Runs every operation of a device at the shapes of a model, or at small awkward ones, on random data, and compares the results with a slow
/// reference in double. For whoever has a new GPU, and for us.</summary>
public sealed class Selftest
{
    private readonly LoadOptions _options;
    private readonly SyntheticPreset _preset;
    private readonly bool _small;
    private readonly DType _type;

    /// <summary>Decides what to test.</summary>
    /// <param name="options">The device. <see cref="LoadOptions.WeightType"/> is the precision, bfloat16 when not given.</param>
    /// <param name="preset">Whose shapes.</param>
    /// <param name="small">Small shapes instead: odd sizes, single rows, ragged sequences; for slow devices and slow tools.</param>
    public Selftest(LoadOptions options, SyntheticPreset preset, bool small)
    {
        options.Validate();
        _options = options;
        _preset = preset;
        _small = small;
        _type = options.WeightType ?? DType.BFloat16;
    }

    /// <summary>Put around the backend, for tests of the self-test.</summary>
    internal Func<IBackend, IBackend> Wrap { get; init; } = backend => backend;

    /// <summary>Name of the device's backend, once it ran.</summary>
    public string BackendName { get; private set; } = "";

    /// <summary>Runs the test.</summary>
    /// <param name="report">Told of every check as it ends.</param>
    /// <param name="cancellation">Ends it early.</param>
    /// <exception cref="InvalidInputException">The device is not there.</exception>
    public IReadOnlyList<SelftestCheck> Run(Action<SelftestCheck>? report = null, CancellationToken cancellation = default)
    {
        var heads = new HeadShape(_preset.HeadDim, _preset.Heads, _preset.KeyValueHeads);
        List<SelftestCheck> checks = [];
        foreach (Func<SelftestCases, IEnumerable<SelftestCase>> group in _small ? (Func<SelftestCases, IEnumerable<SelftestCase>>[])[SmallVision, SmallLanguage] : [Vision, Language])
        {
            cancellation.ThrowIfCancellationRequested();
            // The data outlives the backend, which may use it in place.
            using var data = new RandomTensors(_type, 1);
            using var device = InstrumentBackend.Open(_options with { WeightType = _type }, heads);
            BackendName = device.Backend.Name;
            IBackend backend = Wrap(device.Backend);
            var made = new SelftestCases(backend, data, heads);
            try
            {
                SelftestCase[] cases = [.. group(made)];
                backend.CompleteLoading(null, cancellation);
                backend.ReserveSteps(new StepLimits(made.MostRows, 32, 512, 32));
                foreach (SelftestCase one in cases)
                {
                    cancellation.ThrowIfCancellationRequested();
                    SelftestCheck check = Check(backend, one);
                    checks.Add(check);
                    report?.Invoke(check);
                }
            }
            finally
            {
                foreach (IDisposable owned in made.Owned) owned.Dispose();
            }
        }
        return checks;
    }

    private static SelftestCheck Check(IBackend backend, SelftestCase one)
    {
        double tolerance = backend.ActivationType switch { DType.Float32 => 2e-5, DType.Float16 => 1.5e-3, _ => 1.2e-2 };
        var comparison = new Comparison();
        long started = Stopwatch.GetTimestamp();
        try
        {
            float[] actual = Execute(backend, one);
            double elapsed = Stopwatch.GetElapsedTime(started).TotalMilliseconds;
            one.Compare(actual, comparison);
            bool passed = comparison.Count > 0 && comparison.Error <= tolerance && comparison.Worst <= 40 * tolerance;
            return new SelftestCheck(one.Name, one.Shape, Finite(comparison.Error), Finite(comparison.Worst), tolerance, comparison.Count, passed, elapsed);
        }
        catch (Exception error) when (error is not OperationCanceledException)
        {
            return new SelftestCheck(one.Name, one.Shape, double.MaxValue, double.MaxValue, tolerance, 0, false, Stopwatch.GetElapsedTime(started).TotalMilliseconds, error.Message);
        }

        static double Finite(double value) => double.IsFinite(value) ? value : double.MaxValue; // JSON has no infinity
    }

    private static float[] Execute(IBackend backend, SelftestCase one)
    {
        using var plan = Workspace.ForPlanning(backend.ActivationType);
        one.Execute(new PlanningBackend(backend), plan);
        using var workspace = new Workspace(backend.Allocate(Math.Max(256, plan.HighWaterMark), MemoryOwner.Workspace), backend.ActivationType);
        Tensor output = one.Execute(backend, workspace);
        var actual = new float[checked(output.Rows * output.Columns)];
        Array.Fill(actual, float.NaN); // what is not read back cannot pass
        backend.Read(output, actual);
        return actual;
    }

    private IEnumerable<SelftestCase> Vision(SelftestCases cases)
    {
        int size = _preset.ImageSize / 4, first = _preset.Widths[0];
        yield return cases.Patches(1, _preset.ImageSize, _preset.ImageSize, 4, first);
        yield return cases.LayerNorm(size * size, first);
        for (int stage = 0; stage < _preset.Widths.Length; stage++, size /= 2)
        {
            int channels = _preset.Widths[stage];
            // The expansion is computed in tiles of rows; a few thousand fill any device.
            int tile = Math.Min(size * size, 4608);
            yield return cases.Depthwise(new Grid(1, size, size), channels);
            foreach (SelftestCase one in cases.Linear(channels, 4 * channels, Activation.Gelu, tile)) yield return one;
            foreach (SelftestCase one in cases.Residual(4 * channels, channels, true, tile)) yield return one;
            if (stage + 1 < _preset.Widths.Length) yield return cases.Downsample(new Grid(1, size, size), channels, _preset.Widths[stage + 1]);
        }
        int tokens = _preset.ImageTokens;
        foreach (SelftestCase one in cases.Linear(_preset.Widths[^1], _preset.HiddenSize, Activation.Gelu, tokens)) yield return one;
        foreach (SelftestCase one in cases.Linear(_preset.HiddenSize, _preset.HiddenSize, Activation.None, tokens)) yield return one;
    }

    private IEnumerable<SelftestCase> Language(SelftestCases cases)
    {
        int prompt = Math.Min(_preset.ImageTokens + 60, _preset.MaxPositions - 1), hidden = _preset.HiddenSize, longest = Math.Min(4000, _preset.MaxPositions) - 1;
        yield return cases.Embed(_preset.VocabularySize, hidden, prompt);
        SelftestCases.AttentionWeights whole = cases.BindAttention(hidden), narrow = cases.BindAttention(Math.Min(256, hidden));
        yield return cases.Queries(whole, new SequencePiece(0, 1));
        yield return cases.Queries(whole, [.. Enumerable.Repeat(new SequencePiece(33, 1), 8)]);
        yield return cases.Queries(whole, new SequencePiece(0, prompt));
        yield return cases.Attention(narrow, new SequencePiece(0, prompt));
        yield return cases.Attention(narrow, new SequencePiece(0, 100), new SequencePiece(64, 80), new SequencePiece(prompt - 40, 1), new SequencePiece(130, 37));
        yield return cases.Attention(narrow, new SequencePiece(Math.Min(700, longest), 1));
        yield return cases.Attention(narrow, new SequencePiece(longest, 1));
        yield return cases.Attention(narrow, [.. new[] { 0, 1, 15, 16, 17, 127, 128, prompt - 1 }.Select(start => new SequencePiece(start, 1))]);
        yield return cases.CopiedPages(narrow, new SequencePiece(50, 3));
        foreach (SelftestCase one in cases.Residual(_preset.Heads * _preset.HeadDim, hidden, false, 1, 8, 9, prompt)) yield return one;
        foreach (SelftestCase one in cases.GatedMlp(hidden, _preset.IntermediateSize, 1, 2, 8, 9, prompt)) yield return one;
        foreach (SelftestCase one in cases.Logits(hidden, _preset.VocabularySize, (1, 1), (1, 40), (8, 1), (16, 1))) yield return one;
        foreach (SelftestCase one in cases.Sample(Math.Min(256, hidden), _preset.VocabularySize, 1, 8)) yield return one;
    }

    private static IEnumerable<SelftestCase> SmallVision(SelftestCases cases)
    {
        yield return cases.Patches(2, 20, 36, 4, 16);
        yield return cases.Patches(1, 10, 14, 2, 12);
        foreach ((int rows, int channels) in ((int, int)[])[(1, 8), (7, 192), (33, 20), (3, 3072)]) yield return cases.LayerNorm(rows, channels);
        foreach ((Grid grid, int channels) in ((Grid, int)[])[(new Grid(1, 1, 1), 8), (new Grid(2, 9, 5), 32), (new Grid(1, 17, 16), 64), (new Grid(1, 8, 11), 12)])
            yield return cases.Depthwise(grid, channels);
        foreach ((Grid grid, int channels) in ((Grid, int)[])[(new Grid(1, 2, 2), 8), (new Grid(2, 5, 7), 32), (new Grid(1, 6, 4), 20)]) yield return cases.Downsample(grid, channels, 40);
        foreach ((int inputs, int outputs) in ((int, int)[])[(16, 64), (20, 36), (96, 384)])
        {
            foreach (SelftestCase one in cases.Linear(inputs, outputs, Activation.Gelu, 1, 5, 70)) yield return one;
            foreach (SelftestCase one in cases.Residual(outputs, inputs, true, 1, 5, 70)) yield return one;
        }
        foreach (SelftestCase one in cases.Linear(96, 128, Activation.None, 4)) yield return one;
    }

    private IEnumerable<SelftestCase> SmallLanguage(SelftestCases cases)
    {
        int hidden = Math.Min(_preset.HiddenSize, 128);
        yield return cases.Embed(50, hidden, 37);
        SelftestCases.AttentionWeights weights = cases.BindAttention(hidden);
        yield return cases.Queries(weights, new SequencePiece(0, 1));
        yield return cases.Queries(weights, new SequencePiece(0, 21), new SequencePiece(5, 3));
        yield return cases.Attention(weights, new SequencePiece(0, 1));
        yield return cases.Attention(weights, new SequencePiece(0, 70), new SequencePiece(16, 33), new SequencePiece(40, 1));
        yield return cases.Attention(weights, [.. new[] { 0, 15, 16, 47, 150 }.Select(start => new SequencePiece(start, 1))]);
        yield return cases.CopiedPages(weights, new SequencePiece(20, 2));
        foreach (SelftestCase one in cases.Residual(_preset.Heads * _preset.HeadDim, hidden, false, 1, 3, 8, 9, 40)) yield return one;
        foreach (SelftestCase one in cases.GatedMlp(hidden, 344, 1, 3, 8, 9, 40)) yield return one;
        foreach (SelftestCase one in cases.Logits(hidden, 203, (1, 1), (3, 5), (9, 1))) yield return one;
        foreach (SelftestCase one in cases.Sample(hidden, 203, 1, 9)) yield return one;
    }
}
