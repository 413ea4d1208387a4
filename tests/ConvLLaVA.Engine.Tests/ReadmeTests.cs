using ConvLLaVA.Engine.Generation;
using Xunit;

namespace ConvLLaVA.Engine.Tests;

/// <summary>The README's C# snippet, compiled and run. A test holds the two texts together.</summary>
public sealed class ReadmeTests
{
    [Fact]
    public async Task The_snippet_runs()
    {
        string output = await Run(Repository.Root);
        Assert.StartsWith("Blue", output);
        Assert.EndsWith("Blue (16 image tokens, Stop)\n", output);
    }

    [Fact]
    public void The_snippet_is_the_one_tested()
    {
        static string[] Code(string text) => [.. text.Split('\n').Select(line => line.Trim()).Where(line => line.Length > 1)];
        string readme = File.ReadAllText(Path.Combine(Repository.Root, "README.md"));
        string snippet = readme.Split("```csharp\n")[1].Split("```")[0];
        string source = File.ReadAllText(Path.Combine(Repository.Root, "tests", "ConvLLaVA.Engine.Tests", "ReadmeTests.cs"));
        string tested = source.Split("// snippet begins\n")[1].Split("// snippet ends")[0].Replace("console.", "Console.");
        Assert.Equal(Code(snippet), Code(tested));
    }

    private static async Task<string> Run(string root)
    {
        string here = Directory.GetCurrentDirectory();
        Directory.SetCurrentDirectory(root);
        var console = new StringWriter { NewLine = "\n" };
        try
        {
            // snippet begins
            await using ConvLlava model = await ConvLlava.LoadAsync("models/convllava-demo");

            PromptRequest question = PromptRequest.Ask("What color is the star?", ImageInput.FromFile("samples/shapes-1.png"));
            await foreach (GenerationUpdate update in model.GenerateAsync(question))
            {
                console.Write(update.Text);
            }

            GenerationResult result = await model.AnswerAsync(question, new GenerationOptions { MaxNewTokens = 64, LogProbs = true });
            console.WriteLine($"{result.Text} ({result.Usage.ImageTokens} image tokens, {result.FinishReason})");
            // snippet ends
        }
        finally
        {
            Directory.SetCurrentDirectory(here);
        }
        return console.ToString();
    }
}
