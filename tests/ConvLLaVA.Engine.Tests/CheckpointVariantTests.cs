using System.Text.Json.Nodes;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Tests.Cpu;
using Xunit;

namespace ConvLLaVA.Engine.Tests;

/// <summary>What single fields of a checkpoint's configuration change, on copies of a committed one; and pictures of extreme shape.</summary>
public sealed class CheckpointVariantTests : IDisposable
{
    private static readonly string Models = Path.Combine(Repository.Fixtures, "models");
    private static readonly GenerationOptions Short = new() { MaxNewTokens = 12 };
    private readonly string _folder = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private static PromptRequest Question(string picture = "wide.png") => PromptRequest.Raw("USER: <image>\nWhat? ASSISTANT:", ImageInput.FromFile(Path.Combine(Models, "images", picture)));

    [Fact]
    public async Task End_tokens_of_the_generation_configuration_go_before_those_of_the_model()
    {
        string checkpoint = Copy("two-shards");
        int[] all = await Answer(checkpoint);
        int end = all[5];
        Change(checkpoint, "generation_config.json", json => json["eos_token_id"] = new JsonArray(299, end));
        Assert.Equal(all[..(Array.IndexOf(all, end) + 1)], await Answer(checkpoint));
        File.Delete(Path.Combine(checkpoint, "generation_config.json"));
        Change(checkpoint, "config.json", json => json["eos_token_id"] = all[2]);
        Assert.Equal(all[..(Array.IndexOf(all, all[2]) + 1)], await Answer(checkpoint));
    }

    [Fact]
    public async Task Tiles_are_merged_flat_or_not_at_all()
    {
        Copy("tiny-tower"); // the sibling that the checkpoint names
        string checkpoint = Copy("anyres");
        Change(checkpoint, "config.json", json => json["mm_patch_merge_type"] = "spatial_unpad");
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => ConvLlava.LoadAsync(checkpoint));
        Assert.Contains("spatial_unpad", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_checkpoint_without_tokenizer_is_refused()
    {
        string checkpoint = Copy("embedded");
        File.Delete(Path.Combine(checkpoint, "tokenizer.model"));
        Assert.Contains("tokenizer.model", (await Assert.ThrowsAsync<InvalidInputException>(() => ConvLlava.LoadAsync(checkpoint))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_missing_image_patch_field_means_the_token_exists()
    {
        // The original then adds <im_patch> after the vocabulary, whose table has no row for it here.
        string checkpoint = Copy("embedded");
        Change(checkpoint, "config.json", json => ((JsonObject)json).Remove("mm_use_im_patch_token"));
        await using ConvLlava model = await ConvLlava.LoadAsync(checkpoint);
        Assert.True(model.Config.MmUseImPatchToken);
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => model.AnswerAsync(PromptRequest.Raw("<im_patch>"), Short));
        Assert.Contains($"{model.Config.VocabSize} entries", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("one.png")] // 1x1
    [InlineData("strip.png")] // 1x20000
    [InlineData("animated.gif")]
    [InlineData("cmyk.jpg")]
    public async Task Pictures_of_any_shape_answer(string picture)
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Path.Combine(Models, "two-shards"));
        GenerationResult result = await model.AnswerAsync(PromptRequest.Ask("What?", ImageInput.FromFile(Path.Combine(Repository.Fixtures, "images", picture))), Short);
        Assert.Equal(4, result.Usage.ImageTokens);
    }

    [Fact]
    public void An_identity_projector_hands_the_features_on()
    {
        using var bench = new Workbench();
        float[] values = Workbench.Random(new Random(1), 12);
        Tensor features = bench.Matrix(values, 3), output = bench.Empty(3, 4);
        using Workspace workspace = bench.Workspace();
        new Projector(bench.Backend, "identity", 0, name => throw new InvalidOperationException(name)).Forward(bench.Backend, features, output, workspace);
        Assert.Equal(values, bench.Get(output));
    }

    [Fact]
    public async Task A_limit_beyond_32_bits_of_slots_is_refused()
    {
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => ConvLlava.LoadAsync(Path.Combine(Models, "embedded"), new LoadOptions { KvCacheTokens = int.MaxValue }));
        Assert.Contains("2147483647", error.Message, StringComparison.Ordinal);
    }

    private static async Task<int[]> Answer(string checkpoint)
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(checkpoint);
        return [.. (await model.AnswerAsync(Question(), Short)).TokenIds];
    }

    private string Copy(string checkpoint)
    {
        string source = Path.Combine(Models, checkpoint), target = Path.Combine(_folder, checkpoint);
        foreach (string file in Directory.GetFiles(source, "*", SearchOption.AllDirectories))
        {
            string to = Path.Combine(target, Path.GetRelativePath(source, file));
            Directory.CreateDirectory(Path.GetDirectoryName(to)!);
            File.Copy(file, to);
        }
        return target;
    }

    private static void Change(string checkpoint, string file, Action<JsonNode> change)
    {
        string path = Path.Combine(checkpoint, file);
        JsonNode json = JsonNode.Parse(File.ReadAllText(path))!;
        change(json);
        File.WriteAllText(path, json.ToJsonString());
    }
}
