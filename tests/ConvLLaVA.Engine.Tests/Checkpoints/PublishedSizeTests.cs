using System.Diagnostics;
using System.Text;
using System.Text.Json;
using ConvLLaVA.Engine.Checkpoints;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

/// <summary>A checkpoint of the published size, made of holes: opening it must cost neither time nor memory.</summary>
public sealed class PublishedSizeTests
{
    private const string Config = """
        {"model_type":"llava","max_position_embeddings":4096,"mm_projector_type":"mlp2x_gelu","mm_use_im_patch_token":false,"mm_vision_tower":"tower"}
        """;

    private const string Vision = """{"depths":[3,3,27,3,6],"hidden_sizes":[192,384,768,1536,3072],"num_stages":5}""";

    [Fact]
    public void Fifteen_gigabytes_open_at_once_and_stay_in_their_file()
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("Only here are unwritten parts of a file sure to take no space.");
        using TestFolder folder = new();
        folder.Write("config.json", Config);
        folder.Write("tower/config.json", Vision);
        folder.Write("tower/preprocessor_config.json", """{"size":1536,"crop_size":1536}""");
        IEnumerable<(string, long[])> tensors =
        [
            .. ExpectedTensors.LanguageModel(LlavaConfig.Parse(Config, "c")).Concat(ExpectedTensors.Projector(LlavaConfig.Parse(Config, "c"), 3072)).Select(t => (t.Name, t.Shape.ToArray())),
            .. ExpectedTensors.Vision(VisionConfig.Parse(Vision, "v")).Select(t => (TensorNames.VisionPrefix + t.Name, t.Shape.ToArray())),
        ];
        WriteHoles(folder.At("model.safetensors"), tensors);

        long heap = GC.GetTotalMemory(true), started = Stopwatch.GetTimestamp();
        using Checkpoint checkpoint = Checkpoint.Open(folder.Root);
        TimeSpan took = Stopwatch.GetElapsedTime(started);
        Assert.Equal(2 * 7_436_945_600, checkpoint.Summary.Total.Bytes);
        Assert.InRange(GC.GetTotalMemory(true) - heap, long.MinValue, 20 << 20);
        Assert.True(took < TimeSpan.FromSeconds(15), $"opening took {took}"); // a fraction of a second on an idle machine
    }

    private static void WriteHoles(string path, IEnumerable<(string Name, long[] Shape)> tensors)
    {
        var header = new StringBuilder("{");
        long end = 0;
        foreach ((string name, long[] shape) in tensors)
        {
            long start = end;
            end += 2 * shape.Aggregate(1L, (product, extent) => product * extent);
            header.Append(header.Length > 1 ? "," : "").Append($"{JsonSerializer.Serialize(name)}:{{\"dtype\":\"BF16\",\"shape\":[{string.Join(',', shape)}],\"data_offsets\":[{start},{end}]}}");
        }
        byte[] bytes = Encoding.UTF8.GetBytes(header.Append('}').ToString());
        using FileStream file = File.Create(path);
        file.Write(BitConverter.GetBytes((long)bytes.Length));
        file.Write(bytes);
        file.SetLength(8 + bytes.Length + end);
    }
}
