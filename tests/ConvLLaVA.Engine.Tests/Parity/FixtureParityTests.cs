using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Generation;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Parity;

/// <summary>Every committed checkpoint layout answers as PyTorch does, tensor by tensor.</summary>
public sealed class FixtureParityTests : IDisposable
{
    private static readonly string Folder = Path.Combine(Repository.Fixtures, "models");
    private readonly string _scratch = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public void Dispose() => Directory.Delete(_scratch, true);

    public static TheoryData<string> Cases()
    {
        var names = new TheoryData<string>();
        foreach (JsonElement item in All().Where(item => !item.TryGetProperty("input_ids", out _))) names.Add(item.GetProperty("name").GetString()!);
        return names;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public async Task A_checkpoint_answers_as_PyTorch_does(string name)
    {
        JsonElement item = All().Single(item => item.GetProperty("name").GetString() == name);
        ImageInput[] images = [.. item.GetProperty("images").EnumerateArray().Select(image => ImageInput.FromFile(Path.Combine(Folder, image.GetString()!)))];
        PromptRequest request = item.TryGetProperty("raw", out JsonElement raw)
            ? PromptRequest.Raw(raw.GetString()!, images)
            : PromptRequest.Ask(item.GetProperty("prompt").GetString()!, images) with { Template = item.GetProperty("template").GetString()! };
        var options = new LoadOptions
        {
            VisionTower = item.TryGetProperty("vision_tower", out JsonElement tower) ? Path.Combine(Folder, tower.GetString()!) : null,
        };
        await using ConvLlava model = await ConvLlava.LoadAsync(Path.Combine(Folder, item.GetProperty("checkpoint").GetString()!), options);
        if (item.TryGetProperty("rendered_prompt", out JsonElement prompt)) Assert.Equal(prompt.GetString(), model.RenderPrompt(request));

        string path = Path.Combine(_scratch, "dump.safetensors");
        await model.DumpAsync(request, new GenerationOptions { MaxNewTokens = item.GetProperty("max_new_tokens").GetInt32() }, DumpTensors.All, path);
        DumpComparison.Check(path, Path.Combine(Folder, item.GetProperty("dump").GetString()!));

        if (item.TryGetProperty("pixel_values_sha256", out JsonElement hash))
        {
            using SafetensorsFile dump = SafetensorsFile.Open(path);
            Assert.Equal(hash.GetString(), Convert.ToHexStringLower(SHA256.HashData(MemoryMarshal.AsBytes(DumpComparison.Floats(dump.Tensors["pixel_values"]).AsSpan()))));
        }
    }

    private static List<JsonElement> All()
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Folder, "cases.json")));
        return [.. document.RootElement.EnumerateArray().Select(item => item.Clone())];
    }
}
