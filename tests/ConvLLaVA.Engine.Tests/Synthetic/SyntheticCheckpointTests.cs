using System.Security.Cryptography;
using System.Text.Json;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Synthetic;

/// <summary>Random checkpoints: layout, repeatability, and that the model in them behaves.</summary>
public sealed class SyntheticCheckpointTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("convllava-synth-test-").FullName;
    private static readonly SyntheticPreset Tiny = SyntheticPreset.Get("tiny");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string Write(string name, DType dtype = DType.BFloat16, ulong seed = 0, int threads = 0)
    {
        string path = Path.Combine(_folder, name);
        SyntheticCheckpoint.Write(path, Tiny, dtype, seed, threads);
        return path;
    }

    private static Dictionary<string, string> Hashes(string folder) => Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)
        .ToDictionary(file => Path.GetRelativePath(folder, file), file => Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(file))));

    [Fact]
    public void Bytes_DependOnTheSeedOnly()
    {
        Dictionary<string, string> one = Hashes(Write("one", threads: 1));
        Assert.Equal(one, Hashes(Write("many", threads: 7)));
        Dictionary<string, string> other = Hashes(Write("other", seed: 1));
        Assert.NotEqual(one["model.safetensors"], other["model.safetensors"]);
        Assert.Equal(one["tokenizer.model"], other["tokenizer.model"]);
        Assert.Equal(["config.json", "configuration.json", "generation_config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.model",
            "tokenizer_config.json", "vision_tower/config.json", "vision_tower/model.safetensors", "vision_tower/preprocessor_config.json"],
            one.Keys.Select(name => name.Replace('\\', '/')).Order(StringComparer.Ordinal));
        Assert.Empty(Directory.GetDirectories(_folder, "*.partial"));
    }

    [Fact]
    public void Numbers_OfAPiece_AreThoseOfTheWhole()
    {
        var numbers = new SyntheticNumbers(3, new SyntheticTensor("any.weight", [5000], 0.5, 0.25));
        var whole = new float[5000];
        numbers.Fill(0, System.Runtime.InteropServices.MemoryMarshal.AsBytes(whole.AsSpan()), DType.Float32);
        Assert.All(whole, value => Assert.InRange(value, 0.25f, 0.75f));
        Assert.InRange(whole.Average(), 0.49f, 0.51f);
        Assert.InRange(whole.Distinct().Count(), 4900, 5000);
        foreach ((int start, int count) in ((int, int)[])[(1, 1), (7, 100), (2049, 2951), (4999, 1)])
        {
            var piece = new float[count];
            numbers.Fill(start, System.Runtime.InteropServices.MemoryMarshal.AsBytes(piece.AsSpan()), DType.Float32);
            Assert.Equal(whole.AsSpan(start, count).ToArray(), piece);
        }
        // Beyond 2^32 the positions do not repeat, and pieces that straddle it agree with pieces that do not.
        const long Far = (1L << 32) - 5;
        float[] straddling = new float[16], after = new float[11], begin = new float[11];
        numbers.Fill(Far, System.Runtime.InteropServices.MemoryMarshal.AsBytes(straddling.AsSpan()), DType.Float32);
        numbers.Fill(Far + 5, System.Runtime.InteropServices.MemoryMarshal.AsBytes(after.AsSpan()), DType.Float32);
        numbers.Fill(0, System.Runtime.InteropServices.MemoryMarshal.AsBytes(begin.AsSpan()), DType.Float32);
        Assert.Equal(straddling[5..], after);
        Assert.NotEqual(begin, after);
    }

    [Fact]
    public void Precisions_RoundTheSameNumbers()
    {
        using Checkpoint wide = Checkpoint.Open(Write("wide", DType.Float32)), half = Checkpoint.Open(Write("half", DType.Float16));
        WeightTensor exact = wide.Get("model.layers.1.mlp.up_proj.weight"), rounded = half.Get("model.layers.1.mlp.up_proj.weight");
        Assert.Equal(Array.ConvertAll(TensorConversion.ToFloat32(exact), value => (float)(Half)value), TensorConversion.ToFloat32(rounded));
    }

    [Fact]
    public void TheTowersCopyInTheShards_IsTheTowers()
    {
        string folder = Write("copy");
        using var language = SafetensorsFile.Open(Path.Combine(folder, "model.safetensors"));
        using var tower = SafetensorsFile.Open(Path.Combine(folder, "vision_tower", "model.safetensors"));
        Assert.DoesNotContain("layernorm.weight", tower.Tensors.Keys); // as published: only the copy has the norm that is never applied
        Assert.Contains("model.vision_tower.vision_tower.layernorm.weight", language.Tensors.Keys);
        foreach ((string name, WeightTensor tensor) in tower.Tensors)
            Assert.True(tensor.Bytes.SequenceEqual(language.Tensors[TensorNames.VisionPrefix + name].Bytes), name);
    }

    [Theory]
    [InlineData("7b-768", 144)]
    [InlineData("7b-1024", 256)]
    [InlineData("7b-1536", 576)]
    public void ThePublishedPresets_HaveThePublishedSizes(string name, int imageTokens)
    {
        SyntheticPreset preset = SyntheticPreset.Get(name);
        Assert.Equal(imageTokens, preset.ImageTokens);
        using var weights = new SyntheticWeights(new SyntheticName(preset, 0), DType.BFloat16); // nothing is made before it is read
        Assert.Equal(695, weights.Tensors.Count);
        Assert.Equal(14_873_903_488, weights.Tensors.Values.Sum(tensor => tensor.ByteLength));
        long Parameters(bool vision) => weights.Tensors.Values
            .Where(tensor => tensor.Name.StartsWith(TensorNames.VisionPrefix, StringComparison.Ordinal) == vision && !tensor.Name.Contains("vision_tower.layernorm", StringComparison.Ordinal))
            .Sum(tensor => tensor.ElementCount);
        Assert.Equal(669_161_664, Parameters(true));
        Assert.Equal(6_738_415_616 + 29_368_320, Parameters(false));
    }

    [Fact]
    public void AnIndex_ListsEveryTensorWhenThereAreShards()
    {
        // The smallest preset in shards: the rule is the one of the large presets with another limit.
        string folder = Path.Combine(_folder, "shards");
        SyntheticCheckpoint.Write(folder, Tiny, DType.Float32, 0, 0, null, largestShard: 500_000);
        string[] shards = [.. Directory.GetFiles(folder, "model-*.safetensors").Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal)];
        Assert.InRange(shards.Length, 3, 99);
        Assert.Equal($"model-00001-of-{shards.Length:D5}.safetensors", shards[0]);
        using JsonDocument index = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "model.safetensors.index.json")));
        using Checkpoint whole = Checkpoint.Open(folder);
        Assert.Equal(whole.Summary.Total.Bytes + (2 * 96 * 4), index.RootElement.GetProperty("metadata").GetProperty("total_size").GetInt64());
        using Checkpoint single = Checkpoint.Open(Write("single", DType.Float32));
        Assert.True(whole.Get(TensorNames.LmHead).Bytes.SequenceEqual(single.Get(TensorNames.LmHead).Bytes));
    }

    [Fact]
    public void TheTokenizer_SplitsAndJoinsAnyText()
    {
        foreach (SyntheticPreset preset in SyntheticPreset.All.Where(preset => preset.Name is "tiny" or "7b-1536"))
        {
            string path = Path.Combine(_folder, preset.Name);
            SyntheticFiles.Write(path, preset, DType.BFloat16);
            var tokenizer = ConvLlava.LoadTokenizer(path);
            Assert.Equal(preset.VocabularySize, tokenizer.VocabularySize);
            const string Text = "the Star is 12 px wide; naïve — 星";
            Assert.Equal(Text, tokenizer.Decode(tokenizer.Encode(Text)));
            const string Plain = "there is a red star on the table";
            Assert.InRange(tokenizer.Encode(Plain).Length, 2, Plain.Length * 3 / 4); // common letter pairs are single tokens
        }
    }

    [Fact]
    public async Task AModelThatIsMade_AnswersAsTheOneThatIsStored()
    {
        PromptRequest request = PromptRequest.Ask("what is this", ImageInput.FromFile(Path.Combine(Repository.Root, "samples", "shapes-1.png")));
        var options = new GenerationOptions { MaxNewTokens = 8, LogProbs = true };
        await using ConvLlava stored = await ConvLlava.LoadAsync(Write("stored", seed: 5));
        await using ConvLlava made = await ConvLlava.LoadAsync("synth:tiny:5");
        GenerationResult expected = await stored.AnswerAsync(request, options), actual = await made.AnswerAsync(request, options);
        Assert.Equal(expected.TokenIds, actual.TokenIds);
        Assert.Equal(4, actual.Usage.ImageTokens);
        Assert.Equal(expected.LogProbs!.Select(entry => entry.Chosen.LogProb), actual.LogProbs!.Select(entry => entry.Chosen.LogProb));
    }

    [Fact]
    public async Task Activations_KeepTheirSizeThroughTheDepth()
    {
        string dump = Path.Combine(_folder, "dump.safetensors");
        await using ConvLlava made = await ConvLlava.LoadAsync("synth:tiny");
        await made.DumpAsync(PromptRequest.Ask("hi", ImageInput.FromFile(Path.Combine(Repository.Root, "samples", "shapes-1.png"))),
            new GenerationOptions { MaxNewTokens = 1 }, DumpTensors.All, dump);
        using var tensors = SafetensorsFile.Open(dump);
        foreach (string name in (string[])["vision.hidden_states.0", "vision.hidden_states.3", "vision.hidden_states.5", "projected_features", "logits"])
        {
            float[] values = TensorConversion.ToFloat32(tensors.Tensors[name]);
            double deviation = Math.Sqrt(values.Average(value => (double)value * value));
            Assert.InRange(deviation, 0.2, 8);
        }
    }

    [Fact]
    public void AFolderThatIsTaken_IsLeftAlone()
    {
        string taken = Path.Combine(_folder, "taken");
        Directory.CreateDirectory(taken);
        Write("taken"); // empty: fine
        string before = string.Join(' ', Hashes(taken).OrderBy(pair => pair.Key));
        Assert.Contains("not empty", Assert.Throws<InvalidInputException>(() => Write("taken")).Message, StringComparison.Ordinal);
        Assert.Equal(before, string.Join(' ', Hashes(taken).OrderBy(pair => pair.Key)));
    }

    [Fact]
    public void Cancelling_LeavesNothing()
    {
        using var source = new CancellationTokenSource();
        source.Cancel();
        Assert.ThrowsAny<OperationCanceledException>(() => SyntheticCheckpoint.Write(Path.Combine(_folder, "cancelled"), Tiny, DType.BFloat16, 0, cancellation: source.Token));
        Assert.Empty(Directory.GetFileSystemEntries(_folder));
    }

    [Theory]
    [InlineData("synth:huge", "huge")]
    [InlineData("synth:tiny:x", "synth:tiny:x")]
    [InlineData("synth:tiny:1:2", "synth:tiny:1:2")]
    public void AnUnknownName_IsRefused(string model, string word) => Assert.Contains(word, Assert.Throws<InvalidInputException>(() => Checkpoint.Open(model)).Message, StringComparison.Ordinal);
}
