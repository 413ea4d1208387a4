using ConvLLaVA.Engine.Checkpoints;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

/// <summary>Where the vision tower comes from.</summary>
public sealed class VisionTowerTests : IDisposable
{
    private readonly TinyCheckpoint _tiny = new();

    public void Dispose() => _tiny.Dispose();

    [Fact]
    public void The_order_of_places()
    {
        _tiny.Config["mm_vision_tower"] = $"\"{_tiny.Folder.At("absolute/Tower-Name")}\"";
        _tiny.WriteLanguage(withVision: true).WriteTower("explicit").WriteTower("absolute/Tower-Name").WriteTower("llm/Some/Tower-Name").WriteTower("Tower-Name").WriteTower("llm/vision_tower");
        Assert.Equal(_tiny.Folder.At("explicit"), Source(new CheckpointOptions { VisionTower = _tiny.Folder.At("explicit") }));
        Assert.Equal(_tiny.Folder.At("absolute/Tower-Name"), Source());
        _tiny.Config["mm_vision_tower"] = "\"Some/Tower-Name\"";
        _tiny.WriteLanguage(withVision: true);
        Assert.Equal(_tiny.Folder.At("llm/Some/Tower-Name"), Source());
        Directory.Delete(_tiny.Folder.At("llm/Some"), true);
        Assert.Equal(_tiny.Folder.At("Tower-Name"), Source());
        Directory.Delete(_tiny.Folder.At("Tower-Name"), true);
        Assert.Equal(_tiny.Folder.At("llm/vision_tower"), Source());
        Directory.Delete(_tiny.Folder.At("llm/vision_tower"), true);
        _tiny.WriteTower("llm/vision_tower", weights: false);
        Assert.Equal("the language-model files in " + _tiny.Root, Source());
    }

    [Fact]
    public void A_configuration_only_folder_gives_sizes_to_tensors_in_the_shards()
    {
        using Checkpoint checkpoint = _tiny.WriteLanguage(withVision: true).WriteTower("Tower-Name", weights: false).Open();
        Assert.EndsWith("llm/model.safetensors", checkpoint.GetVision("embeddings.layernorm.bias").Source, StringComparison.Ordinal);
        Assert.Equal(32, checkpoint.Vision.ImageSize);
        Assert.Empty(checkpoint.Summary.Ignored);
        Assert.Single(checkpoint.Summary.Files);
    }

    [Fact]
    public void Tensors_in_the_shards_alone_show_their_shape()
    {
        _tiny.WriteLanguage(withVision: true);
        _tiny.Folder.Write("llm/preprocessor_config.json", TinyCheckpoint.PreprocessorJson);
        RecordingLogger logger = new();
        using Checkpoint checkpoint = _tiny.Open(new CheckpointOptions { Logger = logger });
        Assert.Equal([1, 2], checkpoint.Vision.Depths);
        Assert.Equal([4, 6], checkpoint.Vision.HiddenSizes);
        Assert.Equal(4, checkpoint.Vision.PatchSize);
        Assert.Equal(new PixelSize(32, 32), checkpoint.Preprocessor.CropSize);
        Assert.Contains(logger.Messages, message => message.Contains("its shape was read off the tensors", StringComparison.Ordinal));
    }

    [Fact]
    public void The_separate_folder_wins_and_says_so()
    {
        RecordingLogger logger = new();
        using Checkpoint checkpoint = _tiny.WriteLanguage(withVision: true).WriteTower("Tower-Name").Open(new CheckpointOptions { Logger = logger });
        Assert.Equal(_tiny.Folder.At("Tower-Name"), checkpoint.VisionSource);
        Assert.Contains(logger.Messages, message => message.StartsWith($"Debug: Both {_tiny.Folder.At("Tower-Name")} and", StringComparison.Ordinal));
        Assert.Equal(_tiny.Vision.Count, checkpoint.Summary.Ignored.Length);
    }

    [Fact]
    public void A_tower_with_prefixed_names_is_accepted()
    {
        _tiny.WriteLanguage().WriteTower("Tower-Name", weights: false);
        _tiny.Folder.Write("Tower-Name/model.safetensors", SafetensorsBytes.Of(_tiny.Vision.Select(tensor => ("model.vision_tower.vision_tower." + tensor.Name, tensor.Shape))));
        using Checkpoint checkpoint = _tiny.Open();
        Assert.Equal(4, checkpoint.GetVision("embeddings.layernorm.bias").ElementCount);
    }

    [Fact]
    public void A_trailing_slash_of_the_checkpoint_changes_nothing()
    {
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        using Checkpoint checkpoint = Checkpoint.Open(_tiny.Root + "/");
        Assert.Equal(_tiny.Folder.At("Tower-Name"), checkpoint.VisionSource);
    }

    [Fact]
    public void No_tower_anywhere()
    {
        _tiny.WriteLanguage();
        Refuses(null, "No vision tower was found", _tiny.Folder.At("llm/Some/Tower-Name"), _tiny.Folder.At("Tower-Name"), _tiny.Folder.At("llm/vision_tower"), "model.vision_tower.vision_tower.*");
    }

    [Fact]
    public void A_tower_name_that_means_the_checkpoint_itself()
    {
        _tiny.Config["mm_vision_tower"] = "\".\"";
        _tiny.WriteLanguage();
        Refuses(null, "No vision tower was found");
    }

    [Fact]
    public void No_preprocessor_configuration()
    {
        _tiny.WriteLanguage().WriteTower("Tower-Name", preprocessor: false);
        Refuses(null, "No preprocessor_config.json was found, which states the image size");
    }

    [Fact]
    public void Explicit_folder_missing()
    {
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        Refuses(_tiny.Folder.At("nowhere"), $"The vision tower folder {_tiny.Folder.At("nowhere")} does not exist");
    }

    [Fact]
    public void Explicit_folder_empty()
    {
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        Directory.CreateDirectory(_tiny.Folder.At("empty"));
        Refuses(_tiny.Folder.At("empty"), "No vision tower was found, expected its weights in one of " + _tiny.Folder.At("empty"));
    }

    [Fact]
    public void Image_too_small_for_a_token()
    {
        _tiny.WriteLanguage().WriteTower("Tower-Name");
        _tiny.Folder.Write("Tower-Name/preprocessor_config.json", """{"size":4,"crop_size":4}""");
        Refuses(null, "the image of 4x4 pixels gives no visual token, expected at least 8 pixels");
    }

    [Fact]
    public void Shards_whose_vision_tensors_show_no_shape()
    {
        _tiny.Vision.RemoveAt(0);
        _tiny.WriteLanguage(withVision: true);
        _tiny.Folder.Write("llm/preprocessor_config.json", TinyCheckpoint.PreprocessorJson);
        Refuses(null, "do not show the tower's shape, expected embeddings.patch_embeddings.weight");
    }

    private string Source(CheckpointOptions? options = null)
    {
        using Checkpoint checkpoint = _tiny.Open(options);
        return checkpoint.VisionSource;
    }

    private void Refuses(string? tower, params string[] expected)
    {
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => _tiny.Open(new CheckpointOptions { VisionTower = tower }));
        foreach (string part in expected) Assert.Contains(part, error.Message, StringComparison.Ordinal);
    }
}
