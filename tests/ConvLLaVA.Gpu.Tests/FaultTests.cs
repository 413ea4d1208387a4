using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Gpu.Tests;

/// <summary>Memory, errors, endings.</summary>
public sealed class FaultTests
{
    private static readonly GenerationOptions Long = Fixture.Greedy with { MaxNewTokens = 400 };

    public FaultTests() => Emulator.Start();

    [Fact]
    public async Task Once_warm_nothing_is_asked_of_the_driver()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda());
        PromptRequest[] requests = [Fixture.WithPicture(), PromptRequest.Raw("Tell me a story about a cat")];
        await Task.WhenAll(requests.Select(request => model.AnswerAsync(request, Fixture.Greedy)));
        await Task.WhenAll(requests.Select(request => model.AnswerAsync(request, Fixture.Greedy)));
        (long, long, long, long) before = Allocations();
        long own = model.Gpu().DriverAllocations;
        await Task.WhenAll(requests.Select(request => model.AnswerAsync(request, Fixture.Greedy)));
        Assert.Equal(before, Allocations());
        Assert.Equal(own, model.Gpu().DriverAllocations);
        Assert.Equal(0, model.Memory.Held(MemoryOwner.ImageFeatures));

        static (long, long, long, long) Allocations()
            => (Emulator.Counter("alloc"), Emulator.Counter("alloc_async"), Emulator.Counter("host_alloc"), Emulator.Counter("module_load"));
    }

    [Fact]
    public async Task Memory_is_accounted_for_and_given_back()
    {
        ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda());
        foreach (MemoryOwner owner in (MemoryOwner[])[MemoryOwner.Weights, MemoryOwner.Workspace, MemoryOwner.KvCache]) Assert.True(model.Memory.Held(owner) > 0, $"{owner}");
        Assert.Equal(0, model.Memory.Held(MemoryOwner.MappedWeights));
        await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy);
        Assert.True(model.Memory.Peak(MemoryOwner.ImageFeatures) > 0);
        await model.DisposeAsync();
        Assert.Equal(0, model.Memory.Total);
        Assert.Equal(0, Emulator.Counter("live_bytes"));
    }

    [Fact]
    public async Task Pages_take_what_is_allowed_or_what_is_left()
    {
        await using (ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { KvCacheTokens = null, KvMemory = 1 << 20 }))
            Assert.InRange(model.Memory.Held(MemoryOwner.KvCache), (1 << 20) - (16 * 512), 1 << 20);
        Emulator.Configure("memory", "40M");
        await using (ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { KvCacheTokens = null, GpuMemoryFraction = 0.95 }))
        {
            Assert.InRange(model.Memory.Total, 0.9 * (40 << 20), 0.95 * (40 << 20)); // one context for each sequence would be 4 MiB, and fits not
            Assert.Equal(12, (await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy)).TokenIds.Count);
        }
        var error = await Assert.ThrowsAsync<ConvLlavaException>(() => ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { KvCacheTokens = null, GpuMemoryFraction = 0.8 }));
        Assert.Contains("left for the KV cache", error.Message, StringComparison.Ordinal);
        Assert.Equal(0, Emulator.Counter("live_bytes"));
    }

    [Theory]
    [InlineData(MemoryOwner.Weights, "weights", "dtype")]
    [InlineData(MemoryOwner.KvCache, "KV cache", "kv memory")]
    public async Task A_device_too_small_says_what_was_asked_who_holds_what_and_what_to_change(MemoryOwner owner, string asked, string advice)
    {
        // The first allocation is cuBLASLt's workspace, of 32 MiB here; weights, workspace and pages follow.
        Emulator.Configure("memory", owner == MemoryOwner.Weights ? "32M" : "64M");
        LoadOptions options = Fixture.Cuda() with { KvCacheTokens = owner == MemoryOwner.KvCache ? 200_000 : 64 };
        var error = await Assert.ThrowsAsync<ConvLlavaException>(() => ConvLlava.LoadAsync(Fixture.Tiny, options));
        Assert.Contains($"no room for {asked}", error.Message, StringComparison.Ordinal);
        Assert.Contains("were asked for", error.Message, StringComparison.Ordinal);
        Assert.Contains("workspace", error.Message, StringComparison.Ordinal);
        Assert.Contains(advice, error.Message, StringComparison.Ordinal);
        Assert.Equal(0, Emulator.Counter("live_bytes"));
    }

    [Fact]
    public async Task A_full_device_fails_the_request_that_needs_more_and_no_other()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda());
        Emulator.Inject("alloc:1");
        var error = await Assert.ThrowsAsync<ConvLlavaException>(() => model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy));
        Assert.Contains("no room for image features", error.Message, StringComparison.Ordinal);
        Assert.Equal(12, (await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy)).TokenIds.Count);
    }

    [Theory]
    [InlineData("launch:12:719")]
    [InlineData("kernel:30:700")]
    [InlineData("graph_launch:2:719")]
    [InlineData("copy:6:719")]
    public async Task A_broken_device_ends_every_request_with_one_sentence(string fault)
    {
        ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda());
        Emulator.Inject(fault);
        Task<GenerationResult>[] running = [model.AnswerAsync(Fixture.WithPicture(), Long), model.AnswerAsync(PromptRequest.Raw("Hello"), Long), model.AnswerAsync(PromptRequest.Raw("waits"), Long)];
        var messages = new HashSet<string>();
        foreach (Task<GenerationResult> task in running) messages.Add((await Assert.ThrowsAsync<ConvLlavaException>(() => task)).Message);
        string message = Assert.Single(messages);
        Assert.Contains("cannot go on", message, StringComparison.Ordinal);
        Assert.Contains("CUDA_ERROR_", message, StringComparison.Ordinal);
        var later = await Assert.ThrowsAsync<ConvLlavaException>(() => model.AnswerAsync(PromptRequest.Raw("Hello"), Fixture.Greedy));
        Assert.Equal(message, later.Message);
        await model.DisposeAsync();
        Assert.Equal(0, model.Memory.Total);
    }

    [Fact]
    public async Task A_launch_that_is_refused_fails_its_requests_and_the_engine_goes_on()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda());
        Emulator.Inject("launch:12:701"); // too many resources: not the end of the context
        await Assert.ThrowsAsync<ConvLlavaException>(() => model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy));
        Assert.Equal(12, (await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy)).TokenIds.Count);
    }

    [Fact]
    public async Task Cancelling_in_prefill_ends_the_request_and_others_go_on()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { MaxStepTokens = 4 });
        using var cancel = new CancellationTokenSource();
        Task<GenerationResult> other = model.AnswerAsync(PromptRequest.Raw("Hello"), Fixture.Greedy);
        long launched = Emulator.Counter("launch");
        Task<GenerationResult> cancelled = model.AnswerAsync(PromptRequest.Raw(new string('1', 400)), Fixture.Greedy, cancel.Token); // a hundred steps
        while (Emulator.Counter("launch") < launched + 100) await Task.Delay(1); // some of them
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => cancelled);
        Assert.Equal(12, (await other).TokenIds.Count);
    }

    [Fact]
    public async Task More_context_than_pages_is_refused_and_an_answer_ends_where_they_end()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { KvCacheTokens = 64 });
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => model.AnswerAsync(PromptRequest.Raw(new string('1', 100)), Fixture.Greedy));
        Assert.Contains("there is room for 64", error.Message, StringComparison.Ordinal);
        GenerationResult[] answers = await Task.WhenAll(Enumerable.Range(0, 3).Select(i => model.AnswerAsync(PromptRequest.Raw($"text {i}"), Long))); // each alone would fill the pages
        Assert.All(answers, answer => Assert.Equal((FinishReason.Length, 65), (answer.FinishReason, answer.Usage.PromptTokens + answer.Usage.CompletionTokens)));
    }

    [Fact]
    public async Task More_requests_than_were_configured_wait_their_turn()
    {
        PromptRequest[] requests = [.. Enumerable.Range(0, 5).Select(i => PromptRequest.Raw($"text {i}"))];
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { MaxSequences = 1 });
        var alone = new List<GenerationResult>();
        foreach (PromptRequest request in requests) alone.Add(await model.AnswerAsync(request, Fixture.Greedy));
        long own = model.Gpu().DriverAllocations;
        GenerationResult[] together = await Task.WhenAll(requests.Select(request => model.AnswerAsync(request, Fixture.Greedy)));
        for (int i = 0; i < requests.Length; i++) Assert.Equal(alone[i].TokenIds, together[i].TokenIds);
        Assert.Equal(own, model.Gpu().DriverAllocations);
    }

    [Fact]
    public async Task Loading_that_is_cancelled_leaves_nothing_behind()
    {
        using var cancel = new CancellationTokenSource();
        var progress = new CancelAt(0.5, cancel);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda(), progress, cancel.Token));
        Assert.Equal(0, Emulator.Counter("live_bytes"));
        Assert.Equal(0, Emulator.Counter("live_host_allocations"));
        Emulator.RequireNoReports();
    }

    [Fact]
    public async Task Disposing_while_running_ends_the_requests_and_frees_everything()
    {
        ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda());
        IAsyncEnumerator<GenerationUpdate> updates = model.GenerateAsync(Fixture.WithPicture(), Long).GetAsyncEnumerator();
        Assert.True(await updates.MoveNextAsync());
        await model.DisposeAsync();
        await Assert.ThrowsAsync<ConvLlavaException>(async () =>
        {
            while (await updates.MoveNextAsync()) { }
        });
        Assert.Equal(0, model.Memory.Total);
        Assert.Equal(0, Emulator.Counter("live_bytes"));
    }

    private sealed class CancelAt(double fraction, CancellationTokenSource cancel) : IProgress<LoadProgress>
    {
        public void Report(LoadProgress value)
        {
            if (value.Fraction >= fraction) cancel.Cancel();
        }
    }

    [Fact]
    public async Task Bfloat16_on_Turing_is_refused_with_what_to_use()
    {
        Emulator.Configure("capability", "7.5");
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda(DType.BFloat16)));
        Assert.Contains("float16", error.Message, StringComparison.Ordinal);
        Assert.Contains("7.5", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_GPU_too_old_or_absent_is_said_and_never_replaced_in_silence()
    {
        Emulator.Configure("capability", "7.0");
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda()));
        Assert.Contains("7.5", error.Message, StringComparison.Ordinal);
        Emulator.Configure("capability", "9.0");
        Emulator.Configure("devices", "0");
        error = await Assert.ThrowsAsync<InvalidInputException>(() => ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda()));
        Assert.Contains("no GPU", error.Message, StringComparison.Ordinal);
        Emulator.Configure("devices", "1");
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, new LoadOptions { KvCacheTokens = 64 });
        Assert.StartsWith("cpu", model.BackendName, StringComparison.Ordinal); // auto never takes an emulated device
    }
}
