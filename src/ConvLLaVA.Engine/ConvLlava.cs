using System.Runtime.CompilerServices;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Text;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace ConvLLaVA.Engine;

/// <summary>A loaded ConvLLaVA model. All members are thread-safe; concurrent requests are batched together and each gives
/// the same tokens as it would alone. Dispose ends running requests with an error and frees everything.</summary>
public sealed partial class ConvLlava : IAsyncDisposable, IDisposable
{
    private readonly Checkpoint _checkpoint;
    private readonly IBackend _backend;
    private readonly LlavaModel _model;
    private readonly ModelRunner _runner;
    private readonly GenerationEngine _engine;
    private readonly PromptBuilder _prompts;
    private readonly WeightConverter? _converted;
    private readonly WeightQuantizer? _quantizer;
    private int _disposed;

    private ConvLlava(Checkpoint checkpoint, IBackend backend, string why, LoadOptions options, IProgress<LoadProgress>? progress, CancellationToken cancellation)
    {
        _checkpoint = checkpoint;
        _backend = backend;
        ILogger logger = options.LoggerFactory?.CreateLogger("ConvLLaVA.Engine") ?? NullLogger.Instance;
        LogBackend(logger, backend.Name, why);
        Tokenizer = LoadTokenizer(checkpoint.TokenizerDirectory, checkpoint.Config);
        _prompts = new PromptBuilder(checkpoint.Config, checkpoint.Vision, checkpoint.Preprocessor, Tokenizer, options, logger);
        cancellation.ThrowIfCancellationRequested();
        // A GPU converts on the way to the device.
        if (options.WeightType is { } type && ObservedBackend.Unwrap(backend) is CpuBackend) _converted = new WeightConverter(backend, type);
        if (options.Quantize is { } quantize) _quantizer = new WeightQuantizer(quantize, options.Threads, cancellation);
        // On the CPU packing is the work of loading; a GPU does it on the way to the device.
        bool packs = ObservedBackend.Unwrap(backend) is CpuBackend && (options.Quantize ?? checkpoint.Config.Quantization) is not null;
        _model = new LlavaModel(backend, checkpoint, name => Converted(_quantizer?.Language(name, checkpoint.Get(name)) ?? checkpoint.Get(name)),
            name => Converted(_quantizer?.Vision(name, checkpoint.GetVision(name)) ?? checkpoint.GetVision(name)), progress, packs ? 0.9 : 0.3, cancellation);
        if (_quantizer is { Skipped: { Count: > 0 } skipped }) LogSkipped(logger, skipped.Count, skipped.First());
        cancellation.ThrowIfCancellationRequested();
        progress?.Report(new LoadProgress("memory", 0.95));
        _runner = new ModelRunner(_model, backend, _prompts.TileHeight, _prompts.TileWidth, options);
        _engine = new GenerationEngine(_runner, _runner.EngineOptions, logger);
        progress?.Report(new LoadProgress("ready", 1));
    }

    /// <summary>The backend, for tests and instruments.</summary>
    internal IBackend Backend => _backend;

    /// <summary>The model's tokenizer.</summary>
    public LlamaTokenizer Tokenizer { get; }

    /// <summary>The language model's configuration and the <c>mm_*</c> fields.</summary>
    public LlavaConfig Config => _checkpoint.Config;

    /// <summary>Name of the backend: <c>cpu (…)</c>.</summary>
    public string BackendName => _backend.Name;

    /// <summary>The networks, for measurements.</summary>
    internal LlavaModel Model => _model;

    /// <summary>Pixels of a tile as the vision tower sees it.</summary>
    internal (int Height, int Width) TileSize => (_prompts.TileHeight, _prompts.TileWidth);

    /// <summary>Bytes of all weights as stored.</summary>
    internal long WeightBytes => _checkpoint.Summary.Total.Bytes;

    /// <summary>Runs <paramref name="work"/> on the backend while no request does.</summary>
    internal void Exclusive(Action work) => _runner.Exclusive(work);

    /// <summary>Who holds how much memory, at any time; all zero once disposed.</summary>
    public MemoryLedger Memory => _backend.Memory;

    /// <summary>Opens a checkpoint folder and makes it ready to answer.</summary>
    /// <param name="folder">The folder of the language model, as published; or <c>synth:PRESET</c> for a model with random weights.</param>
    /// <param name="options">How to load; null for the defaults.</param>
    /// <param name="progress">Told how far loading has come.</param>
    /// <param name="cancellation">Ends loading early.</param>
    /// <exception cref="InvalidInputException">The folder is not a checkpoint this engine can run; the message says why.</exception>
    public static Task<ConvLlava> LoadAsync(string folder, LoadOptions? options = null, IProgress<LoadProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(folder);
        options ??= new LoadOptions();
        options.Validate();
        return Task.Run(() => Load(folder, options, progress, cancellation), cancellation);
    }

    /// <summary>Loads only the tokenizer of <paramref name="folder"/>, which may hold nothing else; a <c>config.json</c> beside it
    /// adds the special tokens it asks for.</summary>
    /// <exception cref="InvalidInputException">There is no usable tokenizer.</exception>
    public static LlamaTokenizer LoadTokenizer(string folder)
    {
        string config = Path.Combine(folder, "config.json");
        return LoadTokenizer(folder, File.Exists(config) ? LlavaConfig.Load(config) : null);
    }

    /// <summary>Answers a request, piece by piece as the text becomes certain. The last update carries the finish reason, the
    /// usage and the timings. Cancelling, or ending the enumeration early, frees the request's memory.</summary>
    /// <exception cref="InvalidInputException">An image, the prompt or an option cannot be used.</exception>
    /// <exception cref="ConvLlavaException">The engine failed or was disposed.</exception>
    public async IAsyncEnumerable<GenerationUpdate> GenerateAsync(PromptRequest request, GenerationOptions? options = null,
        [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        SequenceRequest sequence = await PrepareAsync(request, options ?? new GenerationOptions(), cancellation).ConfigureAwait(false);
        await foreach (GenerationUpdate update in _engine.GenerateAsync(sequence, cancellation).ConfigureAwait(false)) yield return update;
    }

    /// <summary>Answers a request as a whole. The text is stripped of white space at both ends, as the original's callers do.</summary>
    /// <inheritdoc cref="GenerateAsync" path="/exception"/>
    public async Task<GenerationResult> AnswerAsync(PromptRequest request, GenerationOptions? options = null, CancellationToken cancellation = default)
    {
        GenerationResult result = await GenerationResult.CollectAsync(GenerateAsync(request, options, cancellation)).ConfigureAwait(false);
        return result with { Text = PythonText.Strip(result.Text) };
    }

    /// <summary>The prompt a request becomes after its template, <c>&lt;image&gt;</c> unexpanded.</summary>
    /// <exception cref="InvalidInputException">The template is unknown or the request does not fit it.</exception>
    public string RenderPrompt(PromptRequest request) => _prompts.Render(request);

    /// <summary>Writes the named tensors of a request, greedy tokens included, into a safetensors file. The file appears only
    /// when it is complete.</summary>
    /// <param name="request">What to run.</param>
    /// <param name="options">How many tokens to generate; sampling is off whatever they say, and the template's own stop string
    /// does not count: the ids are those of plain greedy decoding.</param>
    /// <param name="tensors">Which tensors.</param>
    /// <param name="path">The file to write.</param>
    /// <param name="cancellation">Ends the run early; nothing is written then.</param>
    /// <exception cref="InvalidInputException">The request cannot be used or the file cannot be written.</exception>
    public async Task DumpAsync(PromptRequest request, GenerationOptions options, DumpTensors tensors, string path, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        options.Validate();
        using var writer = new SafetensorsWriter(path); // before the work: an unwritable path is known at once
        GenerationOptions greedy = options with { Temperature = 0 };
        PreparedPrompt prompt = await Task.Run(() => _prompts.Prepare(request), cancellation).ConfigureAwait(false);
        await Task.Run(() => _runner.Exclusive(() =>
        {
            if (Volatile.Read(ref _disposed) != 0) throw new ConvLlavaException("The model was disposed before the dump began.");
            new RequestDump(_model, _backend, prompt, tensors, writer).Run(cancellation);
        }), cancellation).ConfigureAwait(false);
        if (tensors.Wants(DumpTensors.GeneratedIds))
        {
            GenerationResult result = await GenerationResult.CollectAsync(_engine.GenerateAsync(Sequence(prompt, greedy, TimeSpan.Zero), cancellation)).ConfigureAwait(false);
            writer.Add(DumpTensors.GeneratedIds, [result.TokenIds.Count], [.. result.TokenIds.Select(id => (long)id)]);
        }
        writer.Complete();
    }

    /// <summary>What the model computes for a request and a given answer to it, layer by layer.</summary>
    internal async Task<ForwardTrace> TraceAsync(PromptRequest request, IReadOnlyList<int> answer, CancellationToken cancellation)
    {
        PreparedPrompt prompt = await Task.Run(() => _prompts.Prepare(request), cancellation).ConfigureAwait(false);
        ForwardTrace? trace = null;
        await Task.Run(() => _runner.Exclusive(() => trace = ForwardTrace.Run(_model, _backend, prompt, answer, cancellation)), cancellation).ConfigureAwait(false);
        return trace!;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0) return;
        _engine.Dispose();
        Free();
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0) return;
        await _engine.DisposeAsync().ConfigureAwait(false);
        Free();
    }

    /// <summary>Frees everything once a dump that is under way, which reads the same weights, is done.</summary>
    private void Free() => _runner.Exclusive(() =>
    {
        _runner.Dispose();
        _converted?.Dispose();
        _backend.Dispose();
        _checkpoint.Dispose();
    });

    private static ConvLlava Load(string folder, LoadOptions options, IProgress<LoadProgress>? progress, CancellationToken cancellation)
    {
        progress?.Report(new LoadProgress("checkpoint", 0));
        ILogger logger = options.LoggerFactory?.CreateLogger("ConvLLaVA.Engine.Checkpoints") ?? NullLogger.Instance;
        Checkpoint checkpoint = Checkpoint.Open(folder, new CheckpointOptions { VisionTower = options.VisionTower, SyntheticType = options.WeightType ?? DType.BFloat16, Logger = logger });
        IBackend? backend = null;
        try
        {
            if (options.Quantize is { } quantize) checkpoint.RequireQuantizable(quantize);
            backend = Backends.Create(options, checkpoint, options.LoggerFactory?.CreateLogger("ConvLLaVA.Engine.Backends") ?? NullLogger.Instance, out string why);
            if (options.Profiler is { } profiler) backend = profiler.Attach(backend);
            return new ConvLlava(checkpoint, backend, why, options, progress, cancellation);
        }
        catch
        {
            backend?.Dispose();
            checkpoint.Dispose();
            throw;
        }
    }

    private static LlamaTokenizer LoadTokenizer(string folder, LlavaConfig? config) => LlamaTokenizer.Load(folder, new TokenizerOptions
    {
        AddImPatchToken = config?.MmUseImPatchToken ?? false,
        AddImStartEnd = config?.MmUseImStartEnd ?? false,
    });

    /// <summary>Ids that end an answer: as in Hugging Face's <c>generate</c>, <c>generation_config.json</c> goes before
    /// <c>config.json</c>.</summary>
    private IReadOnlyList<int> EosTokenIds => _checkpoint.Generation.EosTokenIds is { Length: > 0 } suggested ? suggested : Config.EosTokenIds;

    private WeightTensor Converted(WeightTensor tensor) => _converted?.Convert(tensor) ?? tensor;

    private async Task<SequenceRequest> PrepareAsync(PromptRequest request, GenerationOptions options, CancellationToken cancellation)
    {
        options.Validate();
        long started = System.Diagnostics.Stopwatch.GetTimestamp();
        PreparedPrompt prompt = await Task.Run(() => _prompts.Prepare(request), cancellation).ConfigureAwait(false);
        GenerationOptions complete = options with { StopStrings = _prompts.StopStrings(request, options.StopStrings) };
        return Sequence(prompt, complete, System.Diagnostics.Stopwatch.GetElapsedTime(started));
    }

    private SequenceRequest Sequence(PreparedPrompt prompt, GenerationOptions options, TimeSpan preprocess) => new()
    {
        PromptTokens = prompt.Expanded,
        Images = prompt.Images,
        ImagesKey = prompt.Images?.Key ?? 0,
        Options = options,
        Decoder = new TextDecoder(new StreamingDecoder(Tokenizer)),
        EosTokenIds = EosTokenIds,
        PreprocessTime = preprocess,
    };

    [LoggerMessage(EventId = 1, Level = LogLevel.Information, Message = "Running on {Backend} ({Why}).")]
    private static partial void LogBackend(ILogger logger, string backend, string why);

    [LoggerMessage(EventId = 2, Level = LogLevel.Warning, Message = "{Count} matrices have an odd number of inputs, which do not fit into bytes in pairs, and stay as they are stored, such as {Name}.")]
    private static partial void LogSkipped(ILogger logger, int count, string name);

    private sealed class TextDecoder(StreamingDecoder decoder) : ITextDecoder
    {
        public string Append(int id) => decoder.Append(id);

        public string Flush() => decoder.Flush();
    }
}
