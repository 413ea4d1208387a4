using Xunit;

namespace ConvLLaVA.Cli.Tests;

/// <summary><c>convllava quantize</c>, <c>--quantize</c> and <c>convllava compare</c>.</summary>
public sealed class QuantizeTests : IDisposable
{
    private static readonly string Demo = Path.Combine(Repository.Root, "models", "convllava-demo");
    private static readonly string Sample = Path.Combine(Repository.Root, "samples", "shapes-1.png");
    private readonly string _folder = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    [Theory, InlineData("q4"), InlineData("nf4")]
    public void A_written_folder_dumps_the_tensors_of_quantising_while_loading(string format)
    {
        string model = Path.Combine(_folder, "model"), a = Path.Combine(_folder, "a.safetensors"), b = Path.Combine(_folder, "b.safetensors");
        Assert.Equal("", CommandLine.Run("quantize", Demo, "--to", format, "--vision", "--lm-head", "--out", model).Succeeds());
        string[] question = ["--prompt", "Describe the image.", "--image", Sample, "--device", "cpu"];
        CommandLine.Run(["dump", "--model", model, "--out", a, .. question]).Succeeds();
        CommandLine.Run(["dump", "--model", Demo, "--quantize", format, "--quantize-vision", "--quantize-lm-head", "--out", b, .. question]).Succeeds();
        Assert.Equal(File.ReadAllBytes(b), File.ReadAllBytes(a));
        string inspected = CommandLine.Run("inspect", model).Succeeds();
        Assert.Contains($"{format}: language model layers, projector, vision pointwise layers, output head", inspected);
        Assert.Contains("bfloat16", inspected);
        CommandLine.Run("run", "--model", model, "--quantize", "q8", "--prompt", "x").IsBadInput("quantised already", format);
        CommandLine.Run("quantize", model, "--to", "q8", "--out", Path.Combine(_folder, "twice")).IsBadInput("quantised already", format);
    }

    [Fact]
    public void An_unknown_format()
    {
        CommandLine.Run("run", "--prompt", "x", "--quantize", "q5").IsBadInput("q5", "q8, q8-row, q4, q4-128, fp8, nf4, int8");
        CommandLine.Run("quantize", Demo, "--to", "Q4", "--out", Path.Combine(_folder, "x")).IsBadInput("--to", "Q4");
        CommandLine.Run("compare", "--with", "q8,q5").IsBadInput("--with", "q5");
        Assert.Empty(Directory.GetFileSystemEntries(_folder));
    }

    [Fact]
    public void Parts_without_a_format() => CommandLine.Run("run", "--prompt", "x", "--quantize-vision").IsBadInput("--quantize-vision", "--quantize does not say how");

    [Fact]
    public void A_folder_that_is_taken()
    {
        File.WriteAllText(Path.Combine(_folder, "precious"), "x");
        CommandLine.Run("quantize", Demo, "--to", "q4", "--out", _folder).IsBadInput(_folder, "not empty");
        Assert.Equal([Path.Combine(_folder, "precious")], Directory.GetFileSystemEntries(_folder));
    }

    [Fact]
    public void A_source_that_is_none() => CommandLine.Run("quantize", _folder, "--to", "q4", "--out", Path.Combine(_folder, "x")).IsBadInput("config.json");

    [Fact]
    public void Compare_prints_a_table_and_writes_json()
    {
        string questions = Path.Combine(_folder, "questions.txt"), json = Path.Combine(_folder, "result.json");
        File.WriteAllText(questions, "What color is the star?\n\nHow many blue shapes are there?\n");
        string table = CommandLine.Run("compare", "--with", "q8,q4", "--prompts", questions, "--images", Sample, "--device", "cpu", "--json", json).Succeeds();
        Assert.Contains("answers the same", table);
        Assert.Contains("2 of 2 (100.0 %)", table);
        Assert.Contains("relative L2, layer 3", table);
        Assert.Contains("\"tokens_agreed\"", File.ReadAllText(json));
        CommandLine.Run("compare", "--with", "q8", "--prompts", Path.Combine(_folder, "none")).IsBadInput("none");
        CommandLine.Run("compare", "--with", "q8", "--prompts", questions, "--images", "no.png").IsBadInput("no.png");
    }
}
