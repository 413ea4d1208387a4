using BenchmarkDotNet.Attributes;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Images;
using ConvLLaVA.Engine.Text;

namespace ConvLLaVA.Bench.Micro;

/// <summary>What comes before the first layer: the template, and the picture's way to the network's input.</summary>
[MemoryDiagnoser]
public class PromptBenchmarks
{
    private readonly ConversationTemplate _template = ConversationTemplate.Get("v1");
    private readonly ChatTurn[] _turns = [.. Enumerable.Range(0, 9).Select(i => new ChatTurn(i % 2 == 0 ? ChatRole.User : ChatRole.Assistant, i == 0 ? "<image>\nWhat is unusual about this image?" : "A man irons on the back of a car."))];
    private RgbImage _picture = null!;
    private ImagePreprocessor _preprocessor = null!;

    /// <summary>Pixels per side of the network's input.</summary>
    [Params(768, 1536)]
    public int Size { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        var pixels = new byte[1280 * 960 * 3];
        new Random(1).NextBytes(pixels);
        _picture = new RgbImage(1280, 960, pixels);
        _preprocessor = new ImagePreprocessor(new PreprocessOptions { CropSize = Size, ShortestEdge = Size });
    }

    [Benchmark]
    public string RenderNineTurns() => _template.RenderForAnswer(_turns);

    [Benchmark]
    public object PadAndResize() => _preprocessor.Prepare(_picture);
}
