using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Text;
using Microsoft.Extensions.Logging;
using Xunit;

namespace ConvLLaVA.Engine.Tests;

/// <summary>The public face over a tiny checkpoint: company, memory, limits, endings.</summary>
public sealed class EngineTests
{
    private static readonly string Models = Path.Combine(Repository.Fixtures, "models");
    private static readonly string Tiny = Path.Combine(Models, "two-shards");
    private static readonly GenerationOptions Short = new() { MaxNewTokens = 24, IgnoreEos = true };

    private static ImageInput Picture(string name) => ImageInput.FromFile(Path.Combine(Models, "images", name));

    private static PromptRequest[] Requests() =>
    [
        PromptRequest.Ask("What is this?", Picture("wide.png")),
        PromptRequest.Ask("Hello"),
        PromptRequest.Raw("A <image>\n<image>\nWhat?", Picture("tall.png"), Picture("wide.png")),
        PromptRequest.Raw("Tell me a story about a cat and a dog and a bird and a fish"),
        PromptRequest.Ask("Where?", Picture("square.png")) with { Template = "llava_v0" },
        PromptRequest.Raw("x"),
    ];

    [Theory]
    [InlineData(512, null)]
    [InlineData(7, null)]
    [InlineData(64, 600)] // few pages: requests wait and are set back
    public async Task Requests_in_company_give_the_same_tokens_as_alone(int stepTokens, int? kvTokens)
    {
        GenerationOptions[] options = [Short, Short with { Temperature = 1, Seed = 5 }, Short with { Temperature = 0.7f, TopP = 0.9f, Seed = 6 }];
        await using ConvLlava alone = await ConvLlava.LoadAsync(Tiny);
        await using ConvLlava shared = await ConvLlava.LoadAsync(Tiny, new LoadOptions { MaxStepTokens = stepTokens, KvCacheTokens = kvTokens, MaxSequences = 5 });
        PromptRequest[] requests = Requests();
        var expected = new List<GenerationResult>();
        for (int i = 0; i < 12; i++) expected.Add(await alone.AnswerAsync(requests[i % requests.Length], options[i % 3]));
        GenerationResult[] together = await Task.WhenAll(Enumerable.Range(0, 12).Select(i => shared.AnswerAsync(requests[i % requests.Length], options[i % 3])));
        for (int i = 0; i < 12; i++)
        {
            Assert.Equal(expected[i].TokenIds, together[i].TokenIds);
            Assert.Equal(expected[i].Text, together[i].Text);
        }
    }

    [Fact]
    public async Task Memory_is_accounted_for_and_given_back()
    {
        ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        MemoryLedger memory = model.Memory;
        Assert.True(memory.Held(MemoryOwner.MappedWeights) > 100_000);
        Assert.True(memory.Held(MemoryOwner.Weights) > 0); // biases, norms and depthwise filters, widened
        Assert.True(memory.Held(MemoryOwner.Workspace) > 0);
        Assert.True(memory.Held(MemoryOwner.KvCache) > 0);
        long idle = memory.Total;
        await model.AnswerAsync(Requests()[0], Short);
        Assert.Equal(0, memory.Held(MemoryOwner.ImageFeatures));
        Assert.True(memory.Peak(MemoryOwner.ImageFeatures) > 0);
        Assert.True(memory.Total >= idle);
        await model.DisposeAsync();
        Assert.Equal(0, memory.Total);
        await model.DisposeAsync();
        model.Dispose();
        Assert.Equal(0, memory.Total);
    }

    [Fact]
    public async Task A_load_that_fails_leaves_nothing_behind()
        => await Assert.ThrowsAsync<InvalidInputException>(() => ConvLlava.LoadAsync(Path.Combine(Models, "images")));

    [Fact]
    public async Task Other_precisions_are_booked_as_weights()
    {
        await using ConvLlava stored = await ConvLlava.LoadAsync(Tiny);
        await using ConvLlava converted = await ConvLlava.LoadAsync(Tiny, new LoadOptions { WeightType = DType.Float32 });
        Assert.True(converted.Memory.Held(MemoryOwner.Weights) > stored.Memory.Held(MemoryOwner.Weights) + 100_000);
        GenerationResult a = await stored.AnswerAsync(Requests()[0], Short), b = await converted.AnswerAsync(Requests()[0], Short);
        Assert.Equal(a.TokenIds, b.TokenIds); // widening is exact
    }

    [Fact]
    public async Task Disposing_ends_running_requests_with_an_error()
    {
        ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        IAsyncEnumerator<GenerationUpdate> updates = model.GenerateAsync(Requests()[0], Short with { MaxNewTokens = 3000 }).GetAsyncEnumerator();
        Assert.True(await updates.MoveNextAsync());
        await model.DisposeAsync();
        await Assert.ThrowsAsync<ConvLlavaException>(async () =>
        {
            while (await updates.MoveNextAsync()) { }
        });
        Assert.Equal(0, model.Memory.Total);
    }

    [Fact]
    public async Task Cancelling_ends_a_request_and_others_go_on()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        using var cancel = new CancellationTokenSource();
        Task<GenerationResult> other = model.AnswerAsync(Requests()[0], Short);
        int seen = 0;
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (GenerationUpdate update in model.GenerateAsync(Requests()[2], Short with { MaxNewTokens = 3000 }, cancel.Token))
            {
                if (++seen == 5) await cancel.CancelAsync();
            }
        });
        Assert.Equal(24, (await other).TokenIds.Count);
    }

    [Fact]
    public async Task Streamed_pieces_join_to_the_whole_text()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        GenerationOptions options = Short with { Temperature = 1.5f, Seed = 11, MaxNewTokens = 60 };
        string joined = "";
        var ids = new List<int>();
        await foreach (GenerationUpdate update in model.GenerateAsync(Requests()[0], options))
        {
            Assert.False(update.Text.Length > 0 && char.IsHighSurrogate(update.Text[^1]));
            joined += update.Text;
            ids.AddRange(update.TokenIds);
        }
        Assert.Equal(model.Tokenizer.Decode(ids.ToArray()), joined);
    }

    [Fact]
    public async Task A_prompt_longer_than_trained_for_runs_with_a_warning_and_is_cut_only_when_asked()
    {
        var log = new ListLogger();
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny, new LoadOptions { LoggerFactory = log });
        int trained = model.Config.TokenizerModelMaxLength!.Value;
        Assert.True(trained < model.Config.MaxPositionEmbeddings, "the fixture must leave room between the two limits");
        PromptRequest request = PromptRequest.Raw(string.Concat(Enumerable.Repeat("1", trained + 10)));
        GenerationResult whole = await model.AnswerAsync(request, Short with { MaxNewTokens = 1 });
        Assert.True(whole.Usage.PromptTokens > trained);
        Assert.Contains(log.Lines, line => line.Contains($"{trained}") && line.Contains($"{whole.Usage.PromptTokens}"));
        // The original cuts where it splices pictures in: text alone never gets there.
        GenerationResult text = await model.AnswerAsync(request with { Truncate = true }, Short with { MaxNewTokens = 1 });
        Assert.Equal(whole.Usage.PromptTokens, text.Usage.PromptTokens);
        PromptRequest picture = PromptRequest.Raw("<image>" + request.RawPrompt, Picture("wide.png")) with { Truncate = true };
        GenerationResult cut = await model.AnswerAsync(picture, Short with { MaxNewTokens = 1 });
        Assert.Equal((trained, 4), (cut.Usage.PromptTokens, cut.Usage.ImageTokens));
    }

    [Fact]
    public async Task A_prompt_beyond_the_model_is_refused_with_both_numbers()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        int most = model.Config.MaxPositionEmbeddings;
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => model.AnswerAsync(PromptRequest.Raw(string.Concat(Enumerable.Repeat("1", most + 5)))));
        Assert.Contains($"{most}", error.Message);
        Assert.Contains($"{most + 7}", error.Message); // BOS and the prefix space come on top
    }

    [Fact]
    public async Task A_prompt_beyond_the_pages_is_refused_with_both_numbers()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny, new LoadOptions { KvCacheTokens = 32 });
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => model.AnswerAsync(PromptRequest.Raw(string.Concat(Enumerable.Repeat("1", 40)))));
        Assert.Contains("42", error.Message);
        Assert.Contains("32", error.Message);
    }

    [Fact]
    public async Task The_answer_ends_where_the_context_ends()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny, new LoadOptions { KvCacheTokens = 48 });
        GenerationResult result = await model.AnswerAsync(PromptRequest.Raw("1111111111"), Short with { MaxNewTokens = 1000 });
        Assert.Equal(FinishReason.Length, result.FinishReason);
        Assert.Equal(48 + 1, result.Usage.PromptTokens + result.Usage.CompletionTokens); // the last token is chosen, never processed
    }

    [Fact]
    public async Task A_conversation_renders_with_its_answers_stripped()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        PromptRequest request = PromptRequest.Chat(
        [
            new ChatMessage(ChatRole.User, "What is this?") { Images = [Picture("wide.png")] },
            new ChatMessage(ChatRole.Assistant, " A cat. \n"),
            new ChatMessage(ChatRole.User, "Sure?"),
        ]);
        Assert.EndsWith("USER: <image>\nWhat is this? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:", model.RenderPrompt(request));
        Assert.True((await model.AnswerAsync(request, Short)).Usage.ImageTokens > 0);
    }

    [Fact]
    public async Task Log_probabilities_come_with_every_token()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        GenerationResult result = await model.AnswerAsync(Requests()[0], Short with { LogProbs = true, TopLogProbs = 3 });
        Assert.Equal(result.TokenIds.Count, result.LogProbs.Count);
        for (int i = 0; i < result.TokenIds.Count; i++)
        {
            Assert.Equal(result.TokenIds[i], result.LogProbs[i].Chosen.Id);
            Assert.Equal(result.LogProbs[i].Chosen, result.LogProbs[i].Top[0]); // greedy takes the likeliest
            Assert.Equal(3, result.LogProbs[i].Top.Count);
            Assert.True(result.LogProbs[i].Top[0].LogProb >= result.LogProbs[i].Top[1].LogProb);
        }
    }

    [Fact]
    public async Task Timings_and_usage_are_told()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        GenerationResult result = await model.AnswerAsync(Requests()[0], Short);
        Assert.Equal(24, result.Usage.CompletionTokens);
        Assert.Equal(4, result.Usage.ImageTokens);
        Assert.True(result.Timings.Encode > TimeSpan.Zero);
        Assert.True(result.Timings.Prefill > TimeSpan.Zero);
        Assert.True(result.Timings.PerToken > TimeSpan.Zero);
        Assert.True(result.Timings.TimeToFirstToken >= result.Timings.Encode + result.Timings.Prefill);
        Assert.Null(result.Seed);
    }

    [Fact]
    public async Task More_threads_than_processors_are_warned_of_and_change_nothing()
    {
        int processors = Environment.ProcessorCount;
        var all = new ListLogger();
        var many = new ListLogger();
        await using ConvLlava one = await ConvLlava.LoadAsync(Tiny, new LoadOptions { Device = Device.Cpu, Threads = 1 });
        await using ConvLlava every = await ConvLlava.LoadAsync(Tiny, new LoadOptions { Device = Device.Cpu, Threads = 0, LoggerFactory = all });
        await using ConvLlava more = await ConvLlava.LoadAsync(Tiny, new LoadOptions { Device = Device.Cpu, Threads = processors + 3, LoggerFactory = many });
        Assert.Contains($"{processors} thread", every.BackendName);
        Assert.Contains($"{processors + 3} threads", more.BackendName);
        Assert.DoesNotContain(all.Lines, line => line.StartsWith("Threads", StringComparison.Ordinal));
        string warning = Assert.Single(many.Lines, line => line.StartsWith("Threads", StringComparison.Ordinal));
        Assert.Contains($"Threads is {processors + 3},", warning);
        Assert.Contains($"more than the {processors} that", warning);
        IReadOnlyList<int> expected = (await one.AnswerAsync(Requests()[0], Short)).TokenIds;
        Assert.Equal(expected, (await every.AnswerAsync(Requests()[0], Short)).TokenIds);
        Assert.Equal(expected, (await more.AnswerAsync(Requests()[0], Short)).TokenIds);
    }

    [Theory]
    [InlineData(-1, "at least 0")]
    [InlineData(1025, "at most 1024")]
    public async Task Threads_out_of_range_are_refused(int threads, string expected)
    {
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => ConvLlava.LoadAsync(Tiny, new LoadOptions { Threads = threads }));
        Assert.Equal($"Threads is {threads} but must be {expected}.", error.Message);
    }

    private sealed class ListLogger : ILoggerFactory, ILogger
    {
        public List<string> Lines { get; } = [];

        public ILogger CreateLogger(string categoryName) => this;

        public void AddProvider(ILoggerProvider provider) => throw new NotSupportedException();

        public void Dispose() { }

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            lock (Lines) Lines.Add(formatter(state, exception));
        }
    }
}
