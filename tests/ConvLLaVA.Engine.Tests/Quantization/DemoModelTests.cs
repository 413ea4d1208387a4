using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Quantization;

/// <summary>The demo model in every format: it still knows the samples, and no answer depends on threads or company.</summary>
public sealed class DemoModelTests
{
    // From samples/README.md: true answers that the unquantised model gives.
    private static readonly (string Picture, string Question, string Answer)[] s_golden =
    [
        ("shapes-1.png", "What color is the star?", "Blue"),
        ("shapes-1.png", "How many blue shapes are there?", "2"),
        ("shapes-1.png", "Describe the image.", "There are 3 shapes: a small blue star in the center, a large orange circle on the right and a large blue triangle at the bottom left."),
        ("shapes-2.jpg", "What shape is the purple object?", "Circle"),
        ("shapes-2.jpg", "Is there a green star?", "No"),
        ("shapes-3.jpg", "Where is the purple star?", "Bottom right"),
        ("shapes-3.jpg", "What size is the green circle?", "Large"),
        ("shapes-4.png", "How many yellow shapes are there?", "2"),
        ("shapes-5.jpg", "What color is the square?", "Green"),
        ("shapes-6.jpg", "How many triangles are there?", "2"),
    ];

    public static TheoryData<QuantFormat> Formats => QuantizedMatrix.Formats;

    [Theory, MemberData(nameof(Formats))]
    public async Task Samples_AreAnsweredTruly(QuantFormat format)
    {
        await using ConvLlava model = await Load(new QuantOptions(format));
        foreach ((string picture, string question, string answer) in s_golden)
            Assert.Equal(answer, (await model.AnswerAsync(Ask(picture, question))).Text);
    }

    [Fact]
    public async Task VisionAndOutputHead_CanBeQuantisedToo()
    {
        foreach (QuantFormat format in new[] { QuantFormat.Q8, QuantFormat.Q4 })
        {
            await using ConvLlava model = await Load(new QuantOptions(format, Vision: true, LmHead: true));
            int right = 0;
            foreach ((string picture, string question, string answer) in s_golden)
            {
                if ((await model.AnswerAsync(Ask(picture, question))).Text == answer) right++;
            }
            Assert.True(right >= s_golden.Length - 1, $"{format}: {right} of {s_golden.Length}");
        }
    }

    [Theory, InlineData(QuantFormat.Q8), InlineData(QuantFormat.Q4), InlineData(QuantFormat.Int8), InlineData(QuantFormat.Nf4)]
    public async Task Answers_DoNotDependOnThreadsOrCompany(QuantFormat format)
    {
        List<IReadOnlyList<float>> alone = [];
        await using (ConvLlava model = await Load(new QuantOptions(format), threads: 1))
        {
            foreach ((string picture, string question, _) in s_golden) alone.Add(await LogProbs(model, picture, question));
        }
        await using ConvLlava together = await Load(new QuantOptions(format), threads: 3);
        IReadOnlyList<float>[] crowd = await Task.WhenAll(s_golden.Select(golden => LogProbs(together, golden.Picture, golden.Question)));
        for (int i = 0; i < alone.Count; i++) Assert.Equal(alone[i], crowd[i]);
    }

    [Fact]
    public async Task Memory_IsAllGivenBack()
    {
        ConvLlava model = await Load(new QuantOptions(QuantFormat.Q4, Vision: true, LmHead: true));
        Assert.True(model.Memory.Total > 0);
        await model.DisposeAsync();
        Assert.Equal(0, model.Memory.Total);
    }

    [Fact]
    public async Task Comparison_OfAModelWithItself_FindsNothing()
    {
        var stored = new ComparedPrecision("stored", Options(null));
        var comparison = new PrecisionComparison(Folder, stored, [Ask("shapes-1.png", "What color is the star?"), PromptRequest.Ask("How many circles?", [])], 8);
        ComparisonReport report = await comparison.RunAsync([stored, new ComparedPrecision("q4", Options(new QuantOptions(QuantFormat.Q4)))]);
        FormatComparison same = report.Formats[0], q4 = report.Formats[1];
        Assert.Equal((0, 0, same.Tokens, 2), (same.Kl, same.KlMax, same.TokensAgreed, same.AnswersAgreed));
        Assert.All(same.Layers, layer => Assert.Equal(0, layer.RelativeL2));
        Assert.Equal(["projected features", "layer 0", "layer 1", "layer 2", "layer 3", "logits"], q4.Layers.Select(layer => layer.Name));
        Assert.All(q4.Layers, layer => Assert.InRange(layer.RelativeL2, 0.005, 0.2));
        Assert.True(q4.Kl > 0 && q4.KlMax >= q4.Kl);
    }

    [Fact]
    public void Divergence_IsThatOfTheDistributions()
    {
        // p = (1/2, 1/2), q = (1/4, 3/4): ln(2) / 2 + ln(2/3) / 2. A constant added to logits changes nothing.
        double kl = PrecisionComparison.Sums.Divergence([7f, 7f], [0f, MathF.Log(3)]);
        Assert.Equal(0.5 * Math.Log(4.0 / 3), kl, 6);
    }

    private static string Folder => Path.Combine(Repository.Root, "models", "convllava-demo");

    private static LoadOptions Options(QuantOptions? quantize, int threads = 2) => new() { Device = Device.Cpu, Quantize = quantize, Threads = threads };

    private static Task<ConvLlava> Load(QuantOptions quantize, int threads = 2) => ConvLlava.LoadAsync(Folder, Options(quantize, threads));

    private static PromptRequest Ask(string picture, string question) => PromptRequest.Ask(question, ImageInput.FromFile(Path.Combine(Repository.Root, "samples", picture)));

    private static async Task<IReadOnlyList<float>> LogProbs(ConvLlava model, string picture, string question)
    {
        GenerationResult result = await model.AnswerAsync(Ask(picture, question), new GenerationOptions { MaxNewTokens = 12, LogProbs = true });
        return [.. result.LogProbs.Select(entry => entry.Chosen.LogProb)];
    }
}
