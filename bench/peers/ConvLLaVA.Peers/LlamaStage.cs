using System.Globalization;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Peers;

/// <summary>Prefill of 512 tokens and 64 decoding steps after it, in four layers as wide as the published model's.</summary>
internal sealed class LlamaStage(PeerOptions options, PeerRecord record, Action<string> say)
{
    private const string SixteenBits = "16 bits";
    private const int SmallestVocabulary = 8000;
    private const int Prompt = 512;
    private const int Steps = 64;
    private const int MaxTokens = Prompt + Steps;
    /// <summary>What prefill is called in the record.</summary>
    public static readonly string PrefillName = string.Create(CultureInfo.InvariantCulture, $"prefill {Prompt}");
    /// <summary>What decoding is called in the record.</summary>
    public static readonly string DecodeName = string.Create(CultureInfo.InvariantCulture, $"decode {Steps}");
    private float[] _expected = [];

    /// <summary>What everybody is fed.</summary>
    public static int[] Tokens { get; } = [.. Enumerable.Range(0, MaxTokens).Select(t => (int)((t * 7919L + 11) % SmallestVocabulary))];

    /// <summary>This engine's model, with its precision from <paramref name="load"/>.</summary>
    public static EngineLlama Open(PeerOptions options, LoadOptions load, int maxTokens)
        => new(options.Model, load with { Device = Device.Cpu, Threads = options.Threads, MaxSequences = 1, KvCacheTokens = 16 }, maxTokens);

    /// <summary>llama.cpp's model in that format; its file is written if it is not there yet.</summary>
    public static LlamaCppModel OpenPeer(PeerOptions options, LlamaCpp library, GgufType type, string name, int maxTokens, Action<string> say)
    {
        SyntheticPreset sizes = SyntheticName.Parse(options.Model).Preset;
        string path = Path.Combine(options.WorkFolder, $"{sizes.Name}-{name}.gguf");
        if (!File.Exists(path))
        {
            say($"  writing {path}");
            GgufFile.Write(path, options.Model, type, type);
        }
        return new LlamaCppModel(library, path, maxTokens, options.Threads, sizes.VocabularySize);
    }

    /// <summary>Bytes of weights that all decoding steps of a run read.</summary>
    public static double DecodeBytes(double bytesPerWeight)
    {
        SyntheticPreset sizes = SyntheticPreset.Get(PeerOptions.PublishedWidth);
        long layer = (4L * sizes.HiddenSize * sizes.HiddenSize) + (3L * sizes.HiddenSize * sizes.IntermediateSize);
        return bytesPerWeight * Steps * ((sizes.Layers * layer) + ((long)sizes.VocabularySize * sizes.HiddenSize));
    }

    /// <summary>Bytes of pages that this engine's decoding steps of a run read: float32 keys and values of every position so far.</summary>
    public static double DecodePageBytes()
    {
        SyntheticPreset sizes = SyntheticPreset.Get(PeerOptions.PublishedWidth);
        double positions = Enumerable.Range(Prompt + 1, Steps).Sum();
        return positions * sizes.Layers * 2 * sizes.KeyValueHeads * (sizes.HiddenSize / sizes.Heads) * sizeof(float);
    }

    public void Run()
    {
        record.Times.RemoveAll(time => time.Work == PrefillName || time.Work == DecodeName);
        record.Checks.RemoveAll(check => check.Work == DecodeName);
        LlamaCpp? llama = options.LlamaFolder is { } folder ? new LlamaCpp(folder) : null;
        if (llama is null) say("llama.cpp is left out: --llama names no folder with its libraries");
        else
        {
            record.Versions["llama.cpp"] = $"ggml {llama.Version}, CPU variant {llama.Variant}";
            record.Versions["llama.cpp features"] = llama.Features.Trim();
        }
        // First fp32: its logits are what the others are held against.
        Hold("fp32", Ours(DType.Float32), Torch(DType.Float32), null);
        Hold(SixteenBits, Ours(DType.BFloat16), Torch(DType.BFloat16), Peer(llama, GgufType.F16, "f16"));
        Hold("q8", Ours(QuantFormat.Q8), Peer(llama, GgufType.Q8_0, "q8_0"));
        Hold("q4", Ours(QuantFormat.Q4), Peer(llama, GgufType.Q4_0, "q4_0"));
    }

    private (string, Func<ILanguageModel>) Ours(DType type)
        => ("this engine " + Short(type), () => Open(options, new LoadOptions { WeightType = type }, MaxTokens));

    private (string, Func<ILanguageModel>) Ours(QuantFormat format)
        => ("this engine " + Short(format), () => Open(options, new LoadOptions { Quantize = new QuantOptions(format, LmHead: true) }, MaxTokens));

    private (string, Func<ILanguageModel>) Torch(DType type) => ("libtorch " + Short(type), () => new TorchLlama(options.Model, type, MaxTokens));

    private (string, Func<ILanguageModel>)? Peer(LlamaCpp? library, GgufType type, string name)
        => library is null ? null : ("llama.cpp " + name, () => OpenPeer(options, library, type, name, MaxTokens, say));

    private void Hold(string weightClass, params (string Name, Func<ILanguageModel> Open)?[] programs)
    {
        say($"language model, {weightClass}");
        List<ILanguageModel> open = [];
        try
        {
            List<Contestant> contestants = [];
            foreach ((string name, Func<ILanguageModel> make) in programs.OfType<(string, Func<ILanguageModel>)>())
            {
                say($"  loading {name}");
                ILanguageModel model = make();
                open.Add(model);
                contestants.Add(new Contestant(name, weightClass, () => Once(model)));
            }
            using InstrumentBackend? reader = weightClass == SixteenBits
                ? InstrumentBackend.Open(new LoadOptions { Device = Device.Cpu, Threads = options.Threads }, new HeadShape(128, 32, 32)) : null;
            // What memory gives changes while others use it, so it is asked in every round.
            if (reader is not null) contestants.Add(new Contestant("reading memory", weightClass, () => [DecodeBytes(2) / ProcessorProbes.ReadGigabytesPerSecond(reader) / 1e6]));
            IReadOnlyList<Timing[]> times = Contest.Hold(contestants, options.Rounds, say);
            if (reader is not null) record.ReadBesideDecodeGbS = DecodeBytes(2) / times[^1][0].Median / 1e6;
            for (int i = 0; i < open.Count; i++)
            {
                record.Times.Add(new PeerTime(PrefillName, weightClass, contestants[i].Name, times[i][0], Prompt));
                record.Times.Add(new PeerTime(DecodeName, weightClass, contestants[i].Name, times[i][1], Steps));
                if (_expected.Length == 0) _expected = open[i].Logits.ToArray();
                else Check(weightClass, contestants[i].Name, open[i].Logits);
            }
        }
        finally
        {
            foreach (ILanguageModel model in open) model.Dispose();
        }
    }

    /// <summary>The last logits against fp32's: everybody must have computed the same model.</summary>
    private void Check(string weightClass, string name, ReadOnlySpan<float> logits)
    {
        double allowed = weightClass switch { "fp32" => 1e-4, "16 bits" => 0.05, "q8" => 0.1, _ => 0.6 };
        double distance = Contest.Distance(logits, _expected);
        record.Checks.Add(new PeerCheck(DecodeName, weightClass, name, "relative L2 of the last logits from this engine's fp32", distance, allowed));
        say($"  {name}: logits differ by {distance:0.0e-0} from fp32's");
        if (!(distance <= allowed)) throw new InvalidOperationException($"{name} computes something else: its logits differ by {distance:0.0e-0}, allowed are {allowed:0.0e-0}.");
    }

    private double[] Once(ILanguageModel model)
    {
        model.Reset();
        double prefill = Contest.Time(() => model.Feed(Tokens[..Prompt]));
        double decode = Contest.Time(() =>
        {
            for (int t = Prompt; t < MaxTokens; t++) model.Feed([Tokens[t]]);
        });
        return [prefill, decode];
    }

    private static string Short(QuantFormat format) => format == QuantFormat.Q8 ? "q8" : "q4";

    private static string Short(DType type) => type switch { DType.Float32 => "fp32", DType.Float16 => "f16", _ => "bf16" };
}
