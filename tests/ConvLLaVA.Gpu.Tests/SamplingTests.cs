using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;
using Xunit;

namespace ConvLLaVA.Gpu.Tests;

/// <summary>Tokens are chosen on the device, are those that the CPU chooses, and little comes back.</summary>
public sealed class SamplingTests : IDisposable
{
    private static readonly PromptRequest Story = PromptRequest.Raw("Tell me a story about a cat");
    private static readonly GenerationOptions Plain = new() { MaxNewTokens = 12, IgnoreEos = true };
    private static readonly GenerationOptions[] Kinds =
    [
        Plain,
        Plain with { Temperature = 0.9f, Seed = 5 }, // the 50 likeliest
        Plain with { Temperature = 1.3f, TopK = 0, Seed = 6 },
        Plain with { Temperature = 0.8f, TopK = 300, TopP = 0.9f, Seed = 7, LogProbs = true },
        Plain with { Temperature = 1, TopK = 0, MinP = 0.02f, Seed = 8 },
        Plain with { RepetitionPenalty = 1.4f, LogProbs = true, TopLogProbs = 3 },
        Plain with { Temperature = 1, TopK = 40, TopP = 0.95f, MinP = 0.01f, PresencePenalty = 0.5f, FrequencyPenalty = 0.3f, Seed = 9, LogProbs = true, TopLogProbs = 20 },
    ];

    private readonly string _scratch = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public SamplingTests() => Emulator.Start();

    public void Dispose()
    {
        Directory.Delete(_scratch, true);
        Emulator.RequireNoReports();
    }

    [Fact]
    public async Task Alone_and_mixed_in_one_batch_requests_get_the_tokens_that_the_CPU_chooses()
    {
        var expected = new List<GenerationResult>();
        await using (ConvLlava cpu = await ConvLlava.LoadAsync(Fixture.Tiny, new LoadOptions { Device = Device.Cpu }))
        {
            foreach (GenerationOptions options in Kinds) expected.Add(await cpu.AnswerAsync(Story, options));
        }
        Assert.Equal(Kinds.Length, expected.Select(result => string.Join(' ', result.TokenIds)).Distinct().Count()); // every option changes the answer
        await using ConvLlava gpu = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { MaxSequences = Kinds.Length, KvCacheTokens = 1024 });
        for (int i = 0; i < Kinds.Length; i++) Same(expected[i], await gpu.AnswerAsync(Story, Kinds[i]));
        long replayed = gpu.Gpu().ReplayedSteps;
        Assert.True(replayed > 5 * Kinds.Length, $"{replayed} steps were replayed: the same recording must serve every kind of sampling");
        GenerationResult[] together = await Task.WhenAll(Kinds.Select(options => gpu.AnswerAsync(Story, options)));
        for (int i = 0; i < Kinds.Length; i++) Same(expected[i], together[i]);
        Assert.True(gpu.Gpu().ReplayedSteps > replayed);
    }

    [Fact]
    public async Task Only_tokens_and_the_log_probabilities_asked_for_come_back()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { MaxStepTokens = 8 }); // the prompt takes several steps
        Assert.Equal(12 * 4, await BytesBackAsync(Plain));
        Assert.Equal(12 * 4, await BytesBackAsync(Kinds[1]));
        Assert.Equal(12 * 4, await BytesBackAsync(Plain with { RepetitionPenalty = 1.4f }));
        Assert.Equal(12 * 8, await BytesBackAsync(Plain with { LogProbs = true }));
        Assert.Equal(12 * (8 + (3 * 8)), await BytesBackAsync(Kinds[5]));

        async Task<long> BytesBackAsync(GenerationOptions options)
        {
            long before = Emulator.Counter("copy_to_host_bytes");
            Assert.Equal(12, (await model.AnswerAsync(Fixture.WithPicture(), options)).TokenIds.Count);
            return Emulator.Counter("copy_to_host_bytes") - before;
        }
    }

    [Fact]
    public async Task Logits_that_are_no_numbers_fail_their_request_and_no_other()
    {
        int[] broken, well;
        await using (ConvLlava cpu = await ConvLlava.LoadAsync(Fixture.Tiny, new LoadOptions { Device = Device.Cpu }))
            (broken, well) = (cpu.Tokenizer.Encode("zebra"), cpu.Tokenizer.Encode("Tell me"));
        int id = broken.Except(well).First();
        File.WriteAllText(Path.Combine(_scratch, "embed_tokens.cu"), $$"""
            #include "device.cuh"
            KERNEL(256, 1) embed_tokens(const int* ids, const storage* table, storage* hidden, int tokens, int hidden_size) {
                const int id = ids[blockIdx.x];
                for (int i = threadIdx.x; id >= 0 && i < hidden_size; i += blockDim.x)
                    hidden[(long long)blockIdx.x * hidden_size + i] = id == {{id}} ? INFINITY - INFINITY : table[(long long)id * hidden_size + i];
            }
            """);
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { KernelFolder = _scratch });
        Task<GenerationResult> other = model.AnswerAsync(PromptRequest.Raw("Tell me"), Plain);
        foreach (GenerationOptions options in (GenerationOptions[])[Plain, Kinds[6]])
        {
            var error = await Assert.ThrowsAsync<ConvLlavaException>(() => model.AnswerAsync(PromptRequest.Raw("zebra"), options));
            Assert.Contains("logits that are not numbers", error.Message, StringComparison.Ordinal);
        }
        Assert.Equal(12, (await other).TokenIds.Count);
        Assert.Equal(12, (await model.AnswerAsync(PromptRequest.Raw("Tell me"), Plain)).TokenIds.Count);
    }

    private static void Same(GenerationResult expected, GenerationResult actual)
    {
        Assert.Equal(expected.TokenIds, actual.TokenIds);
        Assert.Equal(expected.LogProbs.Count, actual.LogProbs.Count);
        foreach ((LogProbEntry e, LogProbEntry a) in expected.LogProbs.Zip(actual.LogProbs))
        {
            Assert.Equal(e.Top.Select(top => top.Id), a.Top.Select(top => top.Id));
            Assert.All(e.Top.Prepend(e.Chosen).Zip(a.Top.Prepend(a.Chosen)), pair => Assert.InRange(pair.Second.LogProb, pair.First.LogProb - 1e-4f, pair.First.LogProb + 1e-4f));
        }
    }
}
