using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Tensors;
using ConvLLaVA.Engine.Tests;

namespace ConvLLaVA.Gpu.Tests;

/// <summary>The committed tiny checkpoints and requests to them.</summary>
internal static class Fixture
{
    public static readonly string Models = Path.Combine(Repository.Fixtures, "models");

    /// <summary>Five-stage tower, four heads of 8, fp32, two layers.</summary>
    public static readonly string Tiny = Path.Combine(Models, "two-shards");

    /// <summary>Greedy and of a fixed length.</summary>
    public static readonly GenerationOptions Greedy = new() { MaxNewTokens = 12, IgnoreEos = true, LogProbs = true, TopLogProbs = 2 };

    /// <summary>On the emulated device, in fp32, with few kernels to compile.</summary>
    public static LoadOptions Cuda(DType type = DType.Float32) => new()
    {
        Device = Device.Cuda,
        WeightType = type,
        MaxSequences = 2,
        MaxStepTokens = 128,
        KvCacheTokens = 512,
    };

    public static ImageInput Picture(string name) => ImageInput.FromFile(Path.Combine(Models, "images", name));

    public static PromptRequest WithPicture(string text = "What is this?") => PromptRequest.Ask(text, Picture("wide.png"));

    public static GpuBackend Gpu(this ConvLlava model) => (GpuBackend)model.Backend;

    /// <summary>A case of <c>cases.json</c>: checkpoint, its options, request, number of tokens.</summary>
    public static (string Checkpoint, string? Tower, PromptRequest Request, int Tokens) Case(string name)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Models, "cases.json")));
        JsonElement item = document.RootElement.EnumerateArray().Single(item => item.GetProperty("name").GetString() == name);
        ImageInput[] images = [.. item.GetProperty("images").EnumerateArray().Select(image => ImageInput.FromFile(Path.Combine(Models, image.GetString()!)))];
        PromptRequest request = item.TryGetProperty("raw", out JsonElement raw)
            ? PromptRequest.Raw(raw.GetString()!, images)
            : PromptRequest.Ask(item.GetProperty("prompt").GetString()!, images) with { Template = item.GetProperty("template").GetString()! };
        string? tower = item.TryGetProperty("vision_tower", out JsonElement folder) ? Path.Combine(Models, folder.GetString()!) : null;
        return (Path.Combine(Models, item.GetProperty("checkpoint").GetString()!), tower, request, item.GetProperty("max_new_tokens").GetInt32());
    }
}
