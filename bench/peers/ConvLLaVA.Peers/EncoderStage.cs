using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Peers;

/// <summary>The published vision encoder over one picture of 768 pixels.</summary>
internal sealed class EncoderStage(PeerOptions options, PeerRecord record, Action<string> say)
{
    private const string Model = "synth:encoder-768";
    private const int Side = 768;
    /// <summary>What it is called in the record.</summary>
    public const string Work = "encode 768";
    private static readonly byte[] Pixels = Noise(); // [768, 768, 3]
    private static readonly float[] Table = [.. Enumerable.Range(0, 768).Select(i => ((i % 256) - 127.5f) / 64)]; // [3, 256]
    private float[] _expected = []; // [tokens, C]

    /// <summary>This engine's encoder with weights of that type.</summary>
    public static EngineEncoder Open(PeerOptions options, DType type)
        => new(Model, new LoadOptions { Device = Device.Cpu, Threads = options.Threads, WeightType = type, MaxSequences = 1, KvCacheTokens = 16 }, Pixels, Side, Table);

    public void Run()
    {
        record.Times.RemoveAll(time => time.Work == Work);
        record.Checks.RemoveAll(check => check.Work == Work);
        float[] values = new float[Pixels.Length]; // [3, 768, 768]
        for (int i = 0; i < Pixels.Length; i++) values[(i % 3 * Side * Side) + (i / 3)] = Table[(256 * (i % 3)) + Pixels[i]];

        record.Versions["ONNX Runtime"] = $"{OnnxRuntimeEncoder.Version}, every optimisation of graphs";
        // First fp32: its features are what the others are held against.
        Hold("fp32",
            ("this engine fp32", () => Open(options, DType.Float32)),
            ("libtorch fp32", () => new TorchConvNeXt(Model, DType.Float32, channelsLast: false, values)),
            ("libtorch fp32 channels_last", () => new TorchConvNeXt(Model, DType.Float32, channelsLast: true, values)),
            ("onnxruntime fp32", () => new OnnxRuntimeEncoder(OnnxFile(), options.Threads, values)));
        Hold("16 bits",
            ("this engine bf16", () => Open(options, DType.BFloat16)),
            ("libtorch bf16 channels_last", () => new TorchConvNeXt(Model, DType.BFloat16, channelsLast: true, values)));
    }

    private void Hold(string weightClass, params (string Name, Func<IEncoder> Open)[] programs)
    {
        say($"vision encoder, {weightClass}");
        List<IEncoder> open = [];
        try
        {
            foreach ((_, Func<IEncoder> make) in programs) open.Add(make());
            Contestant[] contestants = [.. programs.Zip(open, (program, encoder) => new Contestant(program.Name, weightClass, () => [Contest.Time(encoder.Run)]))];
            IReadOnlyList<Timing[]> times = Contest.Hold(contestants, options.Rounds, say);
            for (int i = 0; i < contestants.Length; i++)
            {
                record.Times.Add(new PeerTime(Work, weightClass, contestants[i].Name, times[i][0], 1));
                if (_expected.Length == 0) _expected = open[i].Features;
                else Check(contestants[i], open[i].Features, _expected);
            }
        }
        finally
        {
            foreach (IEncoder encoder in open) encoder.Dispose();
        }
    }

    /// <summary>Writes the model for ONNX Runtime.</summary>
    private string OnnxFile()
    {
        string path = Path.Combine(options.WorkFolder, "encoder-768.onnx");
        say($"  writing {path}");
        OnnxConvNeXt.Write(path, Model);
        return path;
    }

    private void Check(Contestant contestant, float[] found, float[] expected)
    {
        double allowed = contestant.Class == "fp32" ? 1e-4 : 0.1, distance = Contest.Distance(found, expected);
        record.Checks.Add(new PeerCheck(Work, contestant.Class, contestant.Name, "relative L2 of the features from this engine's fp32", distance, allowed));
        say($"  {contestant.Name}: features differ by {distance:0.0e-0}");
        if (!(distance <= allowed)) throw new InvalidOperationException($"{contestant.Name} computes something else: its features differ by {distance:0.0e-0}, allowed are {allowed:0.0e-0}.");
    }

    private static byte[] Noise()
    {
        byte[] pixels = new byte[3 * Side * Side];
        new Random(1).NextBytes(pixels);
        return pixels;
    }
}
