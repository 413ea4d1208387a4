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

    /// <summary>This engine's encoder with weights of that type.</summary>
    public static EngineEncoder Open(PeerOptions options, DType type)
        => new(Model, new LoadOptions { Device = Device.Cpu, Threads = options.Threads, WeightType = type, MaxSequences = 1, KvCacheTokens = 16 }, Pixels, Side, Table);

    public void Run()
    {
        record.Times.RemoveAll(time => time.Work == Work);
        record.Checks.RemoveAll(check => check.Work == Work);
        float[] values = new float[Pixels.Length]; // [3, 768, 768]
        for (int i = 0; i < Pixels.Length; i++) values[(i % 3 * Side * Side) + (i / 3)] = Table[(256 * (i % 3)) + Pixels[i]];

        say("vision encoder");
        List<IDisposable> open = [];
        try
        {
            var ours = Open(options, DType.Float32);
            var oursHalf = Open(options, DType.BFloat16);
            var torch = new TorchConvNeXt(Model, DType.Float32, channelsLast: false, values);
            var torchLast = new TorchConvNeXt(Model, DType.Float32, channelsLast: true, values);
            var torchHalf = new TorchConvNeXt(Model, DType.BFloat16, channelsLast: true, values);
            open.AddRange([ours, oursHalf, torch, torchLast, torchHalf]);
            (Contestant Contestant, Func<float[]> Features)[] programs =
            [
                (Of("this engine fp32", "fp32", ours.Run), () => ours.Features),
                (Of("libtorch fp32", "fp32", torch.Run), () => torch.Features),
                (Of("libtorch fp32 channels_last", "fp32", torchLast.Run), () => torchLast.Features),
                (Of("this engine bf16", "16 bits", oursHalf.Run), () => oursHalf.Features),
                (Of("libtorch bf16 channels_last", "16 bits", torchHalf.Run), () => torchHalf.Features),
            ];
            IReadOnlyList<Timing[]> times = Contest.Hold([.. programs.Select(program => program.Contestant)], options.Rounds, say);
            for (int i = 0; i < programs.Length; i++)
            {
                Contestant contestant = programs[i].Contestant;
                record.Times.Add(new PeerTime(Work, contestant.Class, contestant.Name, times[i][0], 1));
                if (i > 0) Check(contestant, programs[i].Features(), ours.Features);
            }
        }
        finally
        {
            foreach (IDisposable program in open) program.Dispose();
        }
    }

    private void Check(Contestant contestant, float[] found, float[] expected)
    {
        double allowed = contestant.Class == "fp32" ? 1e-4 : 0.1, distance = Contest.Distance(found, expected);
        record.Checks.Add(new PeerCheck(Work, contestant.Class, contestant.Name, "relative L2 of the features from this engine's fp32", distance, allowed));
        say($"  {contestant.Name}: features differ by {distance:0.0e-0}");
        if (!(distance <= allowed)) throw new InvalidOperationException($"{contestant.Name} computes something else: its features differ by {distance:0.0e-0}, allowed are {allowed:0.0e-0}.");
    }

    private static Contestant Of(string name, string weightClass, Action run) => new(name, weightClass, () => [Contest.Time(run)]);

    private static byte[] Noise()
    {
        byte[] pixels = new byte[3 * Side * Side];
        new Random(1).NextBytes(pixels);
        return pixels;
    }
}
