using ConvLLaVA.Engine.Generation;
using FsCheck;
using FsCheck.Fluent;
using Microsoft.Extensions.Logging.Abstractions;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Generation;

/// <summary>The engine's thread over a fake model: company, cancellation at any step, failures, endings.</summary>
public sealed class GenerationEngineTests
{
    private const int BlockSize = 4;

    [Fact]
    public void Any_company_and_any_cancellation_leave_the_others_alone()
    {
        Gen<(int Prompt, int Answer, int CancelAt, bool Images)> request =
            from prompt in Gen.Choose(1, 40)
            from answer in Gen.Choose(1, 30)
            from cancel in Gen.Choose(0, 60)
            from images in Gen.Elements(true, false)
            select (prompt, answer, cancel, images);
        Gen<((int Prompt, int Answer, int CancelAt, bool Images)[] Requests, int Blocks, int Budget)> workload =
            from requests in request.ArrayOf(10)
            from blocks in Gen.Choose(19, 40)
            from budget in Gen.Choose(1, 30)
            select (requests, blocks, budget);
        long preemptions = 0;
        Prop.ForAll(workload.ToArbitrary(), w =>
        {
            var runner = new FakeRunner(w.Blocks, BlockSize);
            using GenerationEngine engine = Engine(runner, w.Blocks, w.Budget);
            Task.WaitAll([.. w.Requests.Select((r, i) => Task.Run(() => RunAsync(engine, r.Prompt, r.Answer, r.CancelAt, r.Images, i)))]);
            Idle(engine, runner);
            preemptions += engine.Preemptions;
            Assert.InRange(runner.LargestStep, 0, w.Budget);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(60));
        Assert.True(preemptions > 0, "no sequence ever had to give up its pages: the workloads prove little");
    }

    [Fact]
    public async Task Leaving_the_enumeration_frees_everything()
    {
        var runner = new FakeRunner(40, BlockSize);
        using GenerationEngine engine = Engine(runner, 40);
        await foreach (GenerationUpdate _ in engine.GenerateAsync(Request(Prompt(10, 1), 100, images: true))) break;
        Idle(engine, runner);
        Assert.Equal(1, runner.Encoded);
    }

    [Fact]
    public async Task A_request_cancelled_before_it_begins_ends_so()
    {
        var runner = new FakeRunner(40, BlockSize);
        using GenerationEngine engine = Engine(runner, 40);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => GenerationResult.CollectAsync(engine.GenerateAsync(Request([1], 5), new CancellationToken(true))));
        Idle(engine, runner);
    }

    [Fact]
    public async Task A_failing_step_ends_its_requests_and_the_engine_goes_on()
    {
        var runner = new FakeRunner(40, BlockSize) { FailsAt = 3 };
        using GenerationEngine engine = Engine(runner, 40);
        var error = await Assert.ThrowsAsync<ConvLlavaException>(() => GenerationResult.CollectAsync(engine.GenerateAsync(Request(Prompt(5, 1), 20, images: true))));
        Assert.Contains("fell over", error.Message, StringComparison.Ordinal);
        Idle(engine, runner);
        GenerationResult result = await GenerationResult.CollectAsync(engine.GenerateAsync(Request(Prompt(5, 1), 20)));
        Assert.Equal(FakeRunner.Answer(Prompt(5, 1), 20), result.TokenIds);
    }

    [Fact]
    public async Task A_failing_encoder_ends_its_request_alone()
    {
        var runner = new FakeRunner(40, BlockSize) { EncodeError = new InvalidInputException("This picture cannot be.") };
        using GenerationEngine engine = Engine(runner, 40);
        Task<GenerationResult> text = GenerationResult.CollectAsync(engine.GenerateAsync(Request(Prompt(6, 2), 30)));
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => GenerationResult.CollectAsync(engine.GenerateAsync(Request(Prompt(5, 1), 20, images: true))));
        Assert.Equal("This picture cannot be.", error.Message);
        Assert.Equal(FakeRunner.Answer(Prompt(6, 2), 30), (await text).TokenIds);
        Idle(engine, runner);
    }

    [Fact]
    public async Task A_decoder_that_fails_ends_its_request_alone()
    {
        var runner = new FakeRunner(40, BlockSize);
        using GenerationEngine engine = Engine(runner, 40);
        await Assert.ThrowsAsync<ConvLlavaException>(() => GenerationResult.CollectAsync(engine.GenerateAsync(Request([1, 2], 5) with { Decoder = new Letters(failsAt: 2) })));
        Idle(engine, runner);
        Assert.Equal(5, (await GenerationResult.CollectAsync(engine.GenerateAsync(Request([1, 2], 5)))).TokenIds.Count);
    }

    [Fact]
    public async Task An_end_token_ends_the_answer_and_is_counted_but_not_shown()
    {
        int[] all = FakeRunner.Answer([5, 6], 40);
        int eos = all[12];
        int at = Array.IndexOf(all, eos);
        using GenerationEngine engine = Engine(new FakeRunner(40, BlockSize), 40);
        GenerationResult result = await GenerationResult.CollectAsync(engine.GenerateAsync(Request([5, 6], 40) with { EosTokenIds = [9999, eos] }));
        Assert.Equal(FinishReason.Stop, result.FinishReason);
        Assert.Equal(all[..(at + 1)], result.TokenIds);
        Assert.Equal(Letters.Text(all[..at]), result.Text);
        Assert.Equal(new TokenUsage(2, 0, at + 1), result.Usage);
        SequenceRequest ignoring = Request([5, 6], 40) with { EosTokenIds = [eos] };
        result = await GenerationResult.CollectAsync(engine.GenerateAsync(ignoring with { Options = ignoring.Options with { IgnoreEos = true } }));
        Assert.Equal(all, result.TokenIds);
    }

    [Fact]
    public async Task A_stop_string_over_several_tokens_ends_the_answer_before_it()
    {
        int[] all = FakeRunner.Answer([7], 60);
        string text = Letters.Text(all), stop = text.Substring(20, 5); // each token is three letters
        using GenerationEngine engine = Engine(new FakeRunner(40, BlockSize), 40);
        SequenceRequest request = Request([7], 60);
        string shown = "";
        GenerationEnd? end = null;
        await foreach (GenerationUpdate update in engine.GenerateAsync(request with { Options = request.Options with { StopStrings = [stop] } }))
        {
            shown += update.Text;
            end = update.End;
        }
        Assert.Equal(FinishReason.StopString, end!.FinishReason);
        Assert.Equal(text[..text.IndexOf(stop, StringComparison.Ordinal)], shown);
    }

    [Fact]
    public async Task Length_is_exact_and_the_context_ends_it_earlier()
    {
        using GenerationEngine engine = Engine(new FakeRunner(40, BlockSize) { MaxPositions = 20 }, 40);
        GenerationResult result = await GenerationResult.CollectAsync(engine.GenerateAsync(Request(Prompt(15, 3), 4)));
        Assert.Equal((FinishReason.Length, 4), (result.FinishReason, result.TokenIds.Count));
        result = await GenerationResult.CollectAsync(engine.GenerateAsync(Request(Prompt(15, 3), 100)));
        Assert.Equal((FinishReason.Length, 6), (result.FinishReason, result.TokenIds.Count)); // the last one needs no place
        await Assert.ThrowsAsync<InvalidInputException>(() => GenerationResult.CollectAsync(engine.GenerateAsync(Request(Prompt(21, 3), 4))));
        await Assert.ThrowsAsync<InvalidInputException>(() => GenerationResult.CollectAsync(engine.GenerateAsync(Request([], 4))));
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => GenerationResult.CollectAsync(engine.GenerateAsync(Request([FakeRunner.Vocabulary], 4))));
        Assert.Contains($"{FakeRunner.Vocabulary} entries", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Disposing_ends_everybody_and_later_requests()
    {
        var runner = new FakeRunner(40, BlockSize) { StepTime = TimeSpan.FromMilliseconds(50) };
        GenerationEngine engine = Engine(runner, 40);
        Task<GenerationResult>[] running = [.. Enumerable.Range(0, 6).Select(i => GenerationResult.CollectAsync(engine.GenerateAsync(Request(Prompt(9, i), 100_000, images: true))))];
        await Task.Delay(20);
        await engine.DisposeAsync();
        engine.Dispose();
        foreach (Task<GenerationResult> task in running) await Assert.ThrowsAnyAsync<ConvLlavaException>(() => task);
        await Assert.ThrowsAsync<ConvLlavaException>(() => GenerationResult.CollectAsync(engine.GenerateAsync(Request([1], 5))));
        Assert.Equal((0, 0), (engine.UsedBlocks, runner.HeldImages));
    }

    private static GenerationEngine Engine(FakeRunner runner, int blocks, int budget = 16) => new(
        runner, new GenerationEngineOptions { Blocks = blocks, BlockSize = BlockSize, MaxStepTokens = budget, MaxSequences = 5 }, NullLogger.Instance);

    private static int[] Prompt(int length, int seed) => [.. Enumerable.Range(0, length).Select(i => ((i * 31) + (seed * 17)) % FakeRunner.Vocabulary)];

    private static SequenceRequest Request(int[] prompt, int answer, bool images = false) => new()
    {
        PromptTokens = prompt,
        Images = images ? new object() : null,
        Options = new GenerationOptions { MaxNewTokens = answer },
        Decoder = new Letters(),
    };

    private static async Task RunAsync(GenerationEngine engine, int promptLength, int answer, int cancelAt, bool images, int seed)
    {
        int[] prompt = Prompt(promptLength, seed);
        if (images) prompt[promptLength / 2] = -1;
        int[] expected = FakeRunner.Answer(prompt, answer);
        using var cancel = new CancellationTokenSource();
        if (cancelAt == 0) await cancel.CancelAsync();
        List<int> ids = [];
        try
        {
            await foreach (GenerationUpdate update in engine.GenerateAsync(Request(prompt, answer, images), cancel.Token))
            {
                ids.AddRange(update.TokenIds);
                if (ids.Count == cancelAt) await cancel.CancelAsync();
            }
            Assert.Equal(expected, ids);
        }
        catch (OperationCanceledException)
        {
            Assert.True(cancelAt <= answer, "nobody cancelled this request");
            Assert.Equal(expected[..ids.Count], ids);
        }
    }

    /// <summary>Cancelled requests are let go at the next step; then nothing is held any more.</summary>
    private static void Idle(GenerationEngine engine, FakeRunner runner)
    {
        Assert.True(SpinWait.SpinUntil(() => engine.UsedBlocks == 0 && runner.HeldImages == 0, TimeSpan.FromSeconds(30)),
            $"{engine.UsedBlocks} pages and {runner.HeldImages} pictures are still held");
    }

    /// <summary>Three letters a token.</summary>
    private sealed class Letters(int failsAt = int.MaxValue) : ITextDecoder
    {
        private int _seen;

        public static string Text(IEnumerable<int> ids) => string.Concat(ids.Select(Of));

        public string Append(int id) => ++_seen == failsAt ? throw new InvalidOperationException("no such piece") : Of(id);

        public string Flush() => "";

        private static string Of(int id) => $"{(char)('a' + (id % 26))}{(char)('a' + (id / 26))}{(char)('A' + (id % 26))}";
    }
}
