using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests;

/// <summary>Dumps: the tensors asked for, no step beyond them, and files that are whole or not there.</summary>
public sealed class DumpTests : IDisposable
{
    private static readonly string Models = Path.Combine(Repository.Fixtures, "models");
    private static readonly string Tiny = Path.Combine(Models, "two-shards");
    private static readonly GenerationOptions Short = new() { MaxNewTokens = 3 };
    private readonly string _folder = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private static PromptRequest TwoPictures() => PromptRequest.Raw("A <image>\n<image>\nWhat?",
        ImageInput.FromFile(Path.Combine(Models, "images", "tall.png")), ImageInput.FromFile(Path.Combine(Models, "images", "wide.png")));

    [Fact]
    public async Task Each_tensor_alone_is_the_one_of_the_whole_dump()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        string whole = Path.Combine(_folder, "whole.safetensors"), single = Path.Combine(_folder, "one.safetensors");
        await model.DumpAsync(TwoPictures(), Short, DumpTensors.All, whole);
        using SafetensorsFile all = SafetensorsFile.Open(whole);
        Assert.Equal(DumpTensors.Names.Order(), all.Tensors.Keys.Order());
        foreach (string name in DumpTensors.Names)
        {
            await model.DumpAsync(TwoPictures(), Short, DumpTensors.Parse(name), single);
            using SafetensorsFile one = SafetensorsFile.Open(single);
            Assert.Equal(name, Assert.Single(one.Tensors.Keys));
            Assert.Equal(all.Tensors[name].Shape.AsEnumerable(), one.Tensors[name].Shape);
            Assert.Equal(all.Tensors[name].Bytes, one.Tensors[name].Bytes);
        }
        Assert.Equal([2L, 3, 128, 128], all.Tensors["pixel_values"].Shape);
        Assert.Equal([2L, 4, 24], all.Tensors["image_features"].Shape);
        Assert.Equal([2L, 4, 32], all.Tensors["projected_features"].Shape);
        long tokens = all.Tensors["input_ids"].Shape[0] - 2 + 8;
        Assert.Equal([tokens, 32L], all.Tensors["inputs_embeds"].Shape);
        Assert.Equal([tokens, 300L], all.Tensors["logits"].Shape);
        Assert.Equal([3L], all.Tensors["generated_ids"].Shape);
        Assert.Equal(2, Directory.GetFiles(_folder).Length);
    }

    [Theory]
    [InlineData("input_ids,pixel_values", false, false)]
    [InlineData("vision.hidden_states.2", true, false)]
    [InlineData("inputs_embeds", true, false)]
    [InlineData("logits", true, true)]
    public async Task No_later_step_takes_memory(string names, bool features, bool pages)
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        long idle = model.Memory.Held(MemoryOwner.KvCache);
        await model.DumpAsync(TwoPictures(), Short, DumpTensors.Parse(names), Path.Combine(_folder, "dump.safetensors"));
        Assert.Equal(features, model.Memory.Peak(MemoryOwner.ImageFeatures) > 0);
        Assert.Equal(pages, model.Memory.Peak(MemoryOwner.KvCache) > idle);
        Assert.Equal(0, model.Memory.Held(MemoryOwner.ImageFeatures));
        Assert.Equal(idle, model.Memory.Held(MemoryOwner.KvCache));
    }

    [Fact]
    public void The_vision_tower_stops_at_the_last_state_asked_for()
    {
        using Checkpoint checkpoint = Checkpoint.Open(Path.Combine(Models, "golden-tiny"));
        using var backend = new CpuBackend(1);
        var model = new LlavaModel(backend, checkpoint, checkpoint.Get, checkpoint.GetVision);
        using var workspace = new Workspace(backend.Allocate(model.PlanWorkspace(128, 128, 1, 1), MemoryOwner.Workspace));
        var image = new ImageBatch([new byte[128 * 128 * 3]], 128, 128, new float[768]);
        for (int last = 0; last <= 5; last++)
        {
            using var scope = workspace.Open();
            List<string> seen = [];
            model.Vision.Forward(backend, image, workspace, (name, _, _) => seen.Add(name), last);
            Assert.Equal(Enumerable.Range(0, last + 1).Select(i => $"vision.hidden_states.{i}"), seen);
        }
    }

    [Fact]
    public async Task Text_alone_has_no_vision_tensors()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        string path = Path.Combine(_folder, "text.safetensors");
        await model.DumpAsync(PromptRequest.Ask("Hello"), Short, DumpTensors.All, path);
        using SafetensorsFile dump = SafetensorsFile.Open(path);
        Assert.Equal(["generated_ids", "input_ids", "inputs_embeds", "logits"], dump.Tensors.Keys.Order());
        Assert.Equal(0, model.Memory.Peak(MemoryOwner.ImageFeatures));
    }

    [Fact]
    public async Task A_cancelled_or_refused_dump_leaves_the_old_file_alone()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Tiny);
        string path = Path.Combine(_folder, "old.safetensors");
        File.WriteAllText(path, "precious");
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => model.DumpAsync(TwoPictures(), Short, DumpTensors.All, path, new CancellationToken(true)));
        await Assert.ThrowsAsync<InvalidInputException>(() => model.DumpAsync(PromptRequest.Raw("<image>"), Short, DumpTensors.All, path));
        await Assert.ThrowsAsync<InvalidInputException>(() => model.DumpAsync(TwoPictures(), Short with { MaxNewTokens = 0 }, DumpTensors.All, path));
        await Assert.ThrowsAsync<InvalidInputException>(() => model.DumpAsync(TwoPictures(), Short, DumpTensors.All, _folder));
        Assert.Equal("precious", File.ReadAllText(path));
        Assert.Single(Directory.GetFiles(_folder));
    }

    [Fact]
    public async Task Disposing_waits_for_a_dump_and_later_ones_are_refused()
    {
        for (int i = 0; i < 10; i++)
        {
            ConvLlava model = await ConvLlava.LoadAsync(Tiny);
            Task dump = model.DumpAsync(TwoPictures(), Short, DumpTensors.Parse("logits"), Path.Combine(_folder, "dump.safetensors"));
            await Task.Delay(i);
            await model.DisposeAsync();
            try
            {
                await dump;
            }
            catch (ConvLlavaException error)
            {
                Assert.Contains("disposed", error.Message, StringComparison.Ordinal);
            }
            Assert.Equal(0, model.Memory.Total);
            await Assert.ThrowsAsync<ConvLlavaException>(() => model.DumpAsync(TwoPictures(), Short, DumpTensors.Parse("logits"), Path.Combine(_folder, "dump.safetensors")));
        }
        Assert.True(Directory.GetFiles(_folder).Length <= 1);
    }

    [Theory]
    [InlineData("")]
    [InlineData(" , ")]
    [InlineData("logits,nonsense")]
    public void Lists_of_nothing_known_are_refused(string list) => Assert.Throws<InvalidInputException>(() => DumpTensors.Parse(list));
}
