using System.Collections.Immutable;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>An opened ConvLLaVA checkpoint: configuration and every weight of vision tower, projector and decoder, checked by name,
/// shape and type. Weights stay in the files, which are mapped; nothing is copied. Safe to read from several threads.</summary>
public sealed class Checkpoint : IDisposable
{
    private readonly List<WeightSet> _sets = [];
    private readonly VisionConfig? _vision;
    private readonly PreprocessorConfig? _preprocessor;
    private readonly CheckpointSummary? _summary;
    private readonly Dictionary<string, WeightTensor> _languageTensors = [];
    private readonly Dictionary<string, WeightTensor> _visionTensors = [];
    private readonly Sha256Manifest? _manifest;
    private string? _temporary;
    private bool _disposed;

    private Checkpoint(string directory, CheckpointOptions options, SyntheticName? made = null)
    {
        Directory = directory;
        TokenizerDirectory = directory;
        _manifest = options.Sha256Manifest is string manifest ? Sha256Manifest.Load(manifest) : null;
        Config = LlavaConfig.Load(Pinned(Path.Combine(directory, "config.json")));
        string generation = Path.Combine(directory, "generation_config.json");
        Generation = File.Exists(generation) ? GenerationConfig.Load(Pinned(generation)) : new GenerationConfig();
        foreach (string name in (ReadOnlySpan<string>)["tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
        {
            if (_manifest is not null && File.Exists(Path.Combine(directory, name))) _manifest.Check(Path.Combine(directory, name));
        }
        Tokenizer = TokenizerConfig.Load(directory);
        if (options.TokenizerOnly) return;

        try
        {
            WeightSet language = made is null ? OpenLanguageModel() : Make(made, options.SyntheticType);
            VisionParts parts = LocateVision(language, options);
            _vision = parts.Config;
            _preprocessor = parts.Preprocessor;
            VisionSource = parts.Source;
            VisionConfigFile = parts.ConfigFile;
            PreprocessorFile = parts.PreprocessorFile;
            CheckWidths(parts);
            Config = Config with { MmHiddenSize = _vision.OutputSize };

            List<WeightTensor> ignored = [];
            _languageTensors = CheckpointValidator.Select(
                ExpectedTensors.LanguageModel(Config).Concat(ExpectedTensors.Projector(Config, _vision.OutputSize)), parts.Language, directory,
                name => CheckpointValidator.IsHarmlessInLanguageModel(name, Config), ignored, Config.Quantization);
            _visionTensors = CheckpointValidator.Select(ExpectedTensors.Vision(_vision), parts.Tensors, parts.Source,
                name => CheckpointValidator.IsHarmlessInVision(name, _vision), ignored, Config.Quantization);
            _summary = Summarise(ignored);
        }
        catch
        {
            Dispose();
            throw;
        }
        Log(options);
    }

    /// <summary>The checkpoint's folder as given.</summary>
    public string Directory { get; }

    /// <summary>The folder that holds <c>tokenizer.model</c>.</summary>
    public string TokenizerDirectory { get; }

    /// <summary>The decoder's configuration; <see cref="LlavaConfig.MmHiddenSize"/> is filled in unless opened for the tokenizer only.</summary>
    public LlavaConfig Config { get; }

    /// <summary>The decoding suggestions; transformers' defaults when the file is missing.</summary>
    public GenerationConfig Generation { get; }

    /// <summary>What the checkpoint says about its tokenizer.</summary>
    public TokenizerConfig Tokenizer { get; }

    /// <summary>The vision tower's configuration, without the block that <c>mm_vision_select_layer</c> -2 drops.</summary>
    /// <exception cref="InvalidOperationException">Opened for the tokenizer only.</exception>
    public VisionConfig Vision => _vision ?? throw TokenizerOnly();

    /// <summary>How pixels become the network's input.</summary>
    /// <exception cref="InvalidOperationException">Opened for the tokenizer only.</exception>
    public PreprocessorConfig Preprocessor => _preprocessor ?? throw TokenizerOnly();

    /// <summary>Where the vision weights come from, for people: a folder, or the language-model files.</summary>
    public string VisionSource { get; } = "nowhere (opened for the tokenizer only)";

    /// <summary>The tower's configuration, or null when its shape was read off the weights.</summary>
    internal string? VisionConfigFile { get; }

    /// <summary>Where <see cref="Preprocessor"/> was read.</summary>
    internal string? PreprocessorFile { get; }

    /// <summary>The tensors of decoder and projector by their full names, and those of the tower by theirs without prefix.</summary>
    internal (IReadOnlyDictionary<string, WeightTensor> Language, IReadOnlyDictionary<string, WeightTensor> Vision) Tensors => (_languageTensors, _visionTensors);

    /// <summary>Files, sizes, precisions and ignored tensors.</summary>
    /// <exception cref="InvalidOperationException">Opened for the tokenizer only.</exception>
    public CheckpointSummary Summary => _summary ?? throw TokenizerOnly();

    /// <summary>Opens the checkpoint in <paramref name="directory"/>, or makes the one that <c>synth:PRESET</c> or
    /// <c>synth:PRESET:SEED</c> names, with random weights and no files.</summary>
    /// <exception cref="InvalidInputException">Something is missing, broken, or not a model this engine runs.</exception>
    public static Checkpoint Open(string directory, CheckpointOptions? options = null)
    {
        if (SyntheticName.Is(directory)) return OpenSynthetic(SyntheticName.Parse(directory), options ?? new CheckpointOptions());
        if (!System.IO.Directory.Exists(directory)) throw new InvalidInputException($"The checkpoint folder {directory} does not exist.");
        return new Checkpoint(directory, options ?? new CheckpointOptions());
    }

    /// <summary>A weight of decoder or projector by its full name, e.g. <c>model.layers.0.mlp.up_proj.weight</c>;
    /// <c>lm_head.weight</c> is the embedding table when the two are tied.</summary>
    /// <exception cref="KeyNotFoundException">The model has no such weight.</exception>
    /// <exception cref="ObjectDisposedException">The checkpoint is closed.</exception>
    public WeightTensor Get(string name)
    {
        if (name == TensorNames.LmHead && Config.TieWordEmbeddings) name = TensorNames.EmbedTokens;
        return name.StartsWith(TensorNames.VisionPrefix, StringComparison.Ordinal)
            ? GetVision(name[TensorNames.VisionPrefix.Length..])
            : Find(_languageTensors, name);
    }

    /// <summary>A weight of the vision tower by its name without prefix, e.g. <c>encoder.stages.0.layers.0.dwconv.weight</c>,
    /// wherever it is stored.</summary>
    /// <exception cref="KeyNotFoundException">The tower has no such weight.</exception>
    /// <exception cref="ObjectDisposedException">The checkpoint is closed.</exception>
    public WeightTensor GetVision(string unprefixedName) => Find(_visionTensors, unprefixedName);

    /// <summary>Refuses to quantise what is quantised, and an output head that is the embedding table.</summary>
    /// <exception cref="InvalidInputException">It cannot be quantised that way.</exception>
    internal void RequireQuantizable(QuantOptions options)
    {
        if (Config.Quantization is { } already)
            throw new InvalidInputException($"{Directory} is quantised already ({already.Format.Name()}) and cannot be quantised to {options.Format.Name()}; take the checkpoint that it was made from.");
        if (options.LmHead && Config.TieWordEmbeddings)
            throw new InvalidInputException($"The output head of {Directory} is its embedding table, which is not quantised; leave the option for the head away.");
    }

    /// <summary>Unmaps the files; no weight may be read afterwards. May be called again.</summary>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        foreach (WeightSet set in _sets) set.Dispose();
        if (_temporary is not null) System.IO.Directory.Delete(_temporary, recursive: true);
    }

    /// <summary>The configurations and the tokenizer of a made model are written for as long as it is open, so that they are read the way
    /// everybody's are.</summary>
    private static Checkpoint OpenSynthetic(SyntheticName name, CheckpointOptions options)
    {
        string folder = System.IO.Directory.CreateTempSubdirectory("convllava-synth-").FullName;
        try
        {
            SyntheticFiles.Write(folder, name.Preset, options.SyntheticType);
            return new Checkpoint(folder, options, name) { _temporary = folder };
        }
        catch
        {
            System.IO.Directory.Delete(folder, recursive: true);
            throw;
        }
    }

    private WeightSet Make(SyntheticName name, DType dtype)
    {
        var weights = new SyntheticWeights(name, dtype);
        var set = WeightSet.Of(weights.Tensors, weights);
        _sets.Add(set);
        return set;
    }

    private WeightTensor Find(Dictionary<string, WeightTensor> tensors, string name)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        return tensors.TryGetValue(name, out WeightTensor? tensor) ? tensor : throw new KeyNotFoundException($"The model has no weight named {name}.");
    }

    private WeightSet OpenLanguageModel()
    {
        string file = WeightSet.Find(Directory)
            ?? throw new InvalidInputException($"The checkpoint folder {Directory} holds no weights, expected one of {WeightSet.CandidateNames}.");
        return Open(file);
    }

    private WeightSet Open(string file)
    {
        WeightSet set = WeightSet.Open(file);
        _sets.Add(set);
        if (file.EndsWith(".json", StringComparison.Ordinal)) _manifest?.Check(file);
        if (_manifest is not null)
        {
            foreach (TensorFile shard in set.Files) _manifest.Check(shard.Path);
        }
        return set;
    }

    private string Pinned(string file)
    {
        _manifest?.Check(file);
        return file;
    }

    private VisionParts LocateVision(WeightSet language, CheckpointOptions options)
    {
        List<string> folders = VisionTower.Folders(Directory, options.VisionTower, Config.MmVisionTower);
        Dictionary<string, WeightTensor> inShards = Unprefixed(language.Tensors, required: false);
        string? weights = folders.Select(WeightSet.Find).FirstOrDefault(file => file is not null);
        if (weights is null && inShards.Count == 0)
        {
            throw new InvalidInputException($"No vision tower was found, expected its weights in one of {string.Join(", ", folders)} or as {TensorNames.VisionPrefix}* in {Directory}.");
        }

        // Shapes and sizes come from the folder of the weights if it states them, else from the first folder that does.
        IEnumerable<string> stating = weights is null ? folders : folders.Prepend(Path.GetDirectoryName(weights)!);
        string? configPath = stating.Select(folder => Path.Combine(folder, "config.json")).FirstOrDefault(File.Exists);
        string? preprocessorPath = stating.Append(Directory).Select(folder => Path.Combine(folder, "preprocessor_config.json")).FirstOrDefault(File.Exists);
        if (preprocessorPath is null)
        {
            throw new InvalidInputException($"No preprocessor_config.json was found, which states the image size: expected it in one of {string.Join(", ", folders.Append(Directory))}.");
        }

        IReadOnlyDictionary<string, WeightTensor> tensors = weights is null ? inShards : Unprefixed(Open(weights).Tensors, required: true);
        if (weights is not null && inShards.Count > 0) CheckpointLog.SeparateTowerWins(options.Logger, Path.GetDirectoryName(weights)!);
        if (configPath is null) CheckpointLog.VisionShapeInferred(options.Logger);
        string source = weights is null ? $"the language-model files in {Directory}" : Path.GetDirectoryName(weights)!;
        VisionConfig config = configPath is null ? VisionTower.Infer(tensors, source) : VisionConfig.Load(Pinned(configPath));
        if (Config.DropsLastVisionBlock) config = config.WithoutLastBlock();
        PreprocessorConfig preprocessor = PreprocessorConfig.Load(Pinned(preprocessorPath));
        if (Math.Min(preprocessor.CropSize.Width, preprocessor.CropSize.Height) < config.TotalStride)
        {
            throw new InvalidInputException($"{preprocessorPath}: the image of {preprocessor.CropSize.Width}x{preprocessor.CropSize.Height} pixels gives no visual token, expected at least {config.TotalStride} pixels a side.");
        }
        // Vision tensors inside the language-model files are judged with the tower when they are its weights, else ignored.
        IReadOnlyDictionary<string, WeightTensor> rest = weights is null
            ? language.Tensors.Where(pair => !pair.Key.StartsWith(TensorNames.VisionPrefix, StringComparison.Ordinal)).ToDictionary()
            : language.Tensors;
        return new VisionParts(config, preprocessor, tensors, rest, source, configPath, preprocessorPath);
    }

    /// <summary>The tensors under the vision prefix without it; a tower's own folder may also have names without prefix.</summary>
    private static Dictionary<string, WeightTensor> Unprefixed(IReadOnlyDictionary<string, WeightTensor> tensors, bool required)
    {
        Dictionary<string, WeightTensor> unprefixed = [];
        foreach ((string name, WeightTensor tensor) in tensors)
        {
            bool prefixed = name.StartsWith(TensorNames.VisionPrefix, StringComparison.Ordinal);
            if (!prefixed && !required) continue;
            if (!unprefixed.TryAdd(prefixed ? name[TensorNames.VisionPrefix.Length..] : name, tensor))
            {
                throw new InvalidInputException($"The tensor {name} in {tensor.Source} is there with and without its prefix, expected it once.");
            }
        }
        return unprefixed;
    }

    private void CheckWidths(VisionParts parts)
    {
        int size = parts.Config.OutputSize;
        if (Config.MmHiddenSize is int stated && stated != size)
        {
            throw new InvalidInputException($"{Path.Combine(Directory, "config.json")}: the field \"mm_hidden_size\" is {stated}, expected {size}, the width of the vision tower in {parts.Source}.");
        }
        if (Config.MmProjectorLayers == 0 && size != Config.HiddenSize)
        {
            throw new InvalidInputException($"The vision tower in {parts.Source} gives {size} channels, expected {Config.HiddenSize} because mm_projector_type is \"identity\".");
        }
    }

    private CheckpointSummary Summarise(List<WeightTensor> ignored)
    {
        ILookup<bool, WeightTensor> byProjector = _languageTensors.ToLookup(
            pair => pair.Key.StartsWith(TensorNames.Projector, StringComparison.Ordinal), pair => pair.Value);
        return new CheckpointSummary(
            [.. _sets.SelectMany(set => set.Files).Select(file => new CheckpointFile(file.Path, file.Length))],
            CheckpointPart.Sum(_visionTensors.Values), CheckpointPart.Sum(byProjector[true]), CheckpointPart.Sum(byProjector[false]),
            [.. _languageTensors.Values.Concat(_visionTensors.Values).Where(tensor => tensor.Quantized is null).Select(tensor => tensor.DType).Distinct().Order()],
            [.. ignored.Select(tensor => tensor.Name).Order(StringComparer.Ordinal)]);
    }

    private void Log(CheckpointOptions options)
    {
        if (Config.MmVisionSelectLayer is not (-1 or -2)) CheckpointLog.SelectLayerIgnored(options.Logger, Config.MmVisionSelectLayer);
        CheckpointSummary summary = Summary;
        if (summary.Ignored.Length > 0) CheckpointLog.IgnoredTensors(options.Logger, summary.Ignored.Length, summary.Ignored[0]);
        CheckpointLog.Opened(options.Logger, Directory, summary.Files.Length, summary.Total.Parameters, VisionSource);
    }

    private static InvalidOperationException TokenizerOnly() => new("The checkpoint was opened for the tokenizer only.");

    private sealed record VisionParts(VisionConfig Config, PreprocessorConfig Preprocessor, IReadOnlyDictionary<string, WeightTensor> Tensors,
        IReadOnlyDictionary<string, WeightTensor> Language, string Source, string? ConfigFile, string PreprocessorFile);
}
