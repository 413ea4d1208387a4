using ConvLLaVA.Engine.Text;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Text;

/// <summary>The vocabularies of the tests: the little one of this repository and, where it is at hand, the stock one.</summary>
internal static class Vocabularies
{
    public static string SmallModel => Path.Combine(Repository.Fixtures, "text", "small.model");

    public static LlamaTokenizer Small { get; } = LoadSmall(new() { Legacy = false });

    public static LlamaTokenizer SmallLegacy { get; } = LoadSmall(new() { Legacy = true });

    /// <summary>The folder of the stock vocabulary; skips the test where it is absent.</summary>
    public static string StockFolder()
    {
        string folder = Path.Combine(Repository.Shared ?? "", "data", "llama-tokenizer");
        if (!File.Exists(Path.Combine(folder, "tokenizer.model"))) Assert.Skip("The stock LLaMA vocabulary is not at hand (data/llama-tokenizer in the shared folder; it is licensed and not part of the repository).");
        return folder;
    }

    public static LlamaTokenizer Stock(bool legacy = false) => LlamaTokenizer.Load(StockFolder(), new() { Legacy = legacy });

    public static LlamaTokenizer LoadSmall(TokenizerOptions? options = null, params (string Name, string Json)[] files)
    {
        using TemporaryFolder folder = SmallFolder(files);
        return LlamaTokenizer.Load(folder.Path, options);
    }

    public static TemporaryFolder SmallFolder(params (string Name, string Json)[] files)
    {
        TemporaryFolder folder = new();
        File.Copy(SmallModel, Path.Combine(folder.Path, "tokenizer.model"));
        foreach ((string name, string json) in files) File.WriteAllText(Path.Combine(folder.Path, name), json);
        return folder;
    }
}

/// <summary>A folder that is gone after the test.</summary>
internal sealed class TemporaryFolder : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("convllava-text-").FullName;

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
