using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Tests;
using Xunit;

namespace ConvLLaVA.Gpu.Tests;

/// <summary>Quantised weights on the emulated device. The CPU rounds activations too, so exact comparisons are with the CPU on a checkpoint that
/// holds, in fp32, what the codes stand for.</summary>
public sealed class QuantizedTests : IDisposable
{
    private readonly string _scratch = Directory.CreateTempSubdirectory("convllava-test-").FullName;
    private readonly ITestOutputHelper _output;

    public QuantizedTests(ITestOutputHelper output)
    {
        _output = output;
        Emulator.Start();
    }

    public static TheoryData<QuantFormat> Formats => [.. Enum.GetValues<QuantFormat>()];

    private static string Demo => Path.Combine(Repository.Root, "models", "convllava-demo");

    public void Dispose()
    {
        Directory.Delete(_scratch, true);
        Emulator.RequireNoReports();
    }

    /// <summary>Everything that can be quantised is: layer scales, a head, groups that are cut short, blocks of nf4 that cross rows.</summary>
    [Theory]
    [MemberData(nameof(Formats))]
    public async Task Every_tensor_is_that_of_what_the_codes_stand_for(QuantFormat format)
        => await Compare(Path.Combine(Fixture.Models, "embedded"), Fixture.WithPicture(), new QuantOptions(format, Vision: true, LmHead: true), 12);

    [Theory]
    [InlineData(QuantFormat.Q4)]
    [InlineData(QuantFormat.Nf4)]
    public async Task The_demo_model_is_that_of_what_the_codes_stand_for(QuantFormat format) => await Compare(Demo, Ask(), new QuantOptions(format), 40);

    [Fact]
    public async Task The_demo_model_gives_the_tokens_that_it_gives_on_the_CPU_in_q4()
    {
        var quantize = new QuantOptions(QuantFormat.Q4);
        GenerationOptions options = Fixture.Greedy with { MaxNewTokens = 30 };
        GenerationResult expected, actual;
        await using (ConvLlava model = await ConvLlava.LoadAsync(Demo, new LoadOptions { Device = Device.Cpu, Quantize = quantize })) expected = await model.AnswerAsync(Ask(), options);
        long bytes;
        await using (ConvLlava model = await ConvLlava.LoadAsync(Demo, Fixture.Cuda(DType.BFloat16) with { MaxSequences = 1, Quantize = quantize }))
        {
            actual = await model.AnswerAsync(Ask(), options);
            bytes = model.Memory.Held(MemoryOwner.Weights);
        }
        int clear = expected.LogProbs.TakeWhile(entry => entry.Top[0].LogProb - entry.Top[1].LogProb >= 0.4f).Count();
        Assert.True(clear >= 10, $"only {clear} tokens have a clear margin: this case proves little");
        Assert.Equal(expected.TokenIds.Take(clear), actual.TokenIds.Take(clear));
        _output.WriteLine($"{clear} tokens with a clear margin; {bytes / 1e6:F1} MB of weights and room to dequantise in");
    }

    /// <summary>A matrix that does not fit the room to dequantise in goes through it in tiles, the last of them smaller.</summary>
    [Fact]
    public void A_product_of_many_rows_takes_tiles_of_a_quantised_matrix()
    {
        const int Rows = 40, In = 96, Out = 600;
        float[] answers = [.. new[] { Out, 256, 7 }.SelectMany(tile => Product(tile, Rows, In, Out))];
        Assert.All(answers, value => Assert.True(float.IsFinite(value)));
        Assert.Equal(answers[..(Rows * Out)], answers[(Rows * Out)..(2 * Rows * Out)]);
        Assert.Equal(answers[..(Rows * Out)], answers[(2 * Rows * Out)..]);
    }

    private static float[] Product(int tile, int rows, int inFeatures, int outFeatures)
    {
        using var gpu = new GpuBackend(new GpuOptions { Type = DType.Float32, HeadDim = 8, Heads = 4, KeyValueHeads = 4, MaxDecodeRows = 1, DequantisedBytes = (long)tile * inFeatures * sizeof(float) });
        using var random = new RandomTensors(DType.Float32, 5);
        WeightTensor stored = random.Linear(outFeatures, inFeatures), bias = random.Make([outFeatures], 0, 1);
        var layout = new QuantLayout(QuantFormat.Q4, outFeatures, inFeatures);
        QuantizedBytes bytes = QuantEncoder.Encode(stored, layout, 1);
        using IDisposable? owner = bytes.Owner;
        LinearWeight weight = gpu.LoadLinear([new WeightTensor("w", new QuantizedTensor(layout, bytes), "memory")], bias);
        EmbeddingTable input = gpu.LoadEmbedding(random.Make([rows, inFeatures], 0, 1));
        gpu.CompleteLoading(null, CancellationToken.None);
        using var workspace = new Workspace(gpu.Allocate(1 << 20, MemoryOwner.Workspace), DType.Float32);
        Tensor x = workspace.Take(rows, inFeatures), y = workspace.Take(rows, outFeatures);
        InstrumentBackend.Upload(gpu, input, x);
        gpu.Linear(x, weight, Activation.None, y);
        var answer = new float[rows * outFeatures];
        gpu.Read(y, answer);
        return answer;
    }

    [Fact]
    public async Task All_memory_is_given_back()
    {
        ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { Quantize = new QuantOptions(QuantFormat.Q8) });
        Assert.True(model.Memory.Total > 0);
        await model.DisposeAsync();
        Assert.Equal(0, model.Memory.Total);
    }

    private async Task Compare(string folder, PromptRequest request, QuantOptions quantize, int tokens)
    {
        var options = new GenerationOptions { MaxNewTokens = tokens };
        string cpu = Path.Combine(_scratch, "cpu.safetensors"), gpu = Path.Combine(_scratch, "gpu.safetensors"), decoded = Path.Combine(_scratch, "decoded");
        Decode(folder, decoded, quantize);
        await using (ConvLlava model = await ConvLlava.LoadAsync(decoded, new LoadOptions { Device = Device.Cpu, WeightType = DType.Float32 })) await model.DumpAsync(request, options, DumpTensors.All, cpu);
        await using (ConvLlava model = await ConvLlava.LoadAsync(folder, Fixture.Cuda() with { MaxSequences = 1, MaxStepTokens = 512, KvCacheTokens = 1024, Quantize = quantize }))
            await model.DumpAsync(request, options, DumpTensors.All, gpu);
        (double worst, string tensor) = DumpPair.Compare(gpu, cpu, 1e-4);
        _output.WriteLine($"{quantize.Format.Name()}: largest relative L2 {worst:E2}, of {tensor}");
    }

    /// <summary>Writes a checkpoint whose covered matrices are what the codes of <paramref name="quantize"/> stand for.</summary>
    private static void Decode(string folder, string destination, QuantOptions quantize)
    {
        int changed = 0;
        foreach (string path in Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories))
        {
            string copy = Path.Combine(destination, Path.GetRelativePath(folder, path));
            Directory.CreateDirectory(Path.GetDirectoryName(copy)!);
            if (!path.EndsWith(".safetensors", StringComparison.Ordinal))
            {
                File.Copy(path, copy);
                continue;
            }
            using SafetensorsFile source = SafetensorsFile.Open(path);
            using var writer = new SafetensorsWriter(copy);
            foreach ((string name, WeightTensor tensor) in source.Tensors)
            {
                int vision = name.IndexOf("stages.", StringComparison.Ordinal);
                bool covered = quantize.Covers(name) || (vision >= 0 && quantize.CoversVision(name[vision..]));
                if (!covered || !QuantLayout.Fits(quantize.Format, tensor.Shape[1]))
                {
                    writer.Add(name, tensor.DType, tensor.Shape.AsSpan(), tensor.Bytes);
                    continue;
                }
                changed++;
                var layout = new QuantLayout(quantize.Format, (int)tensor.Shape[0], (int)tensor.Shape[1]);
                QuantizedBytes bytes = QuantEncoder.Encode(tensor, layout, 1);
                var quantized = new QuantizedTensor(layout, bytes);
                var values = new float[tensor.ElementCount];
                for (int row = 0; row < layout.Rows; row++) QuantReference.DecodeRow(quantized, row, values.AsSpan(row * layout.Columns, layout.Columns));
                writer.Add(name, tensor.Shape.AsSpan(), values);
                bytes.Owner?.Dispose();
            }
            writer.Complete();
        }
        Assert.True(changed >= 8, $"only {changed} matrices are quantised");
    }

    private static PromptRequest Ask() => PromptRequest.Ask("Describe the image.", ImageInput.FromFile(Path.Combine(Repository.Root, "samples", "shapes-1.png")));
}
