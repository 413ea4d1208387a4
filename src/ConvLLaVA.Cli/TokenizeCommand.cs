using System.CommandLine;
using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Text;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava tokenize</c>: JSON strings in, JSON id lists out, a line each, or the other way round.</summary>
internal static class TokenizeCommand
{
    public static Command Create()
    {
        var command = new Command("tokenize", "Turn JSON strings (a line each, on stdin) into JSON id lists, or back with --decode.");
        var model = new Option<string?>("--model", "-m") { Description = "Checkpoint folder, or one that holds only tokenizer files; without it the demo model's.", HelpName = "DIR" };
        var decode = new Option<bool>("--decode") { Description = "Id lists in, strings out; special tokens are skipped, spaces kept." };
        var images = new Option<bool>("--image-tokens") { Description = "Split at <image> and put -200 there." };
        command.Add(model);
        command.Add(decode);
        command.Add(images);
        command.SetAction((parsed, cancellation) => Task.FromResult(Run(
            ConvLlava.LoadTokenizer(parsed.GetValue(model) ?? DemoModel.Locate()), parsed.GetValue(decode), parsed.GetValue(images), cancellation)));
        return command;
    }

    private static int Run(LlamaTokenizer tokenizer, bool decode, bool images, CancellationToken cancellation)
    {
        using var input = new StreamReader(Console.OpenStandardInput(), new System.Text.UTF8Encoding(false));
        using var output = new StreamWriter(Console.OpenStandardOutput(), new System.Text.UTF8Encoding(false));
        for (int number = 1; input.ReadLine() is { } line; number++)
        {
            cancellation.ThrowIfCancellationRequested();
            if (string.IsNullOrWhiteSpace(line)) continue;
            if (decode)
            {
                int[] ids = Parse(line, number, CliJson.Default.Int32Array, "a list of token ids");
                output.WriteLine(JsonSerializer.Serialize(tokenizer.Decode(ids), CliJson.Default.String));
            }
            else
            {
                string text = Parse(line, number, CliJson.Default.String, "a string");
                output.WriteLine(JsonSerializer.Serialize(images ? tokenizer.EncodeWithImages(text) : tokenizer.Encode(text), CliJson.Default.Int32Array));
            }
            output.Flush();
        }
        return Program.Done;
    }

    private static T Parse<T>(string line, int number, System.Text.Json.Serialization.Metadata.JsonTypeInfo<T> type, string expected) where T : class
    {
        try
        {
            return JsonSerializer.Deserialize(line, type) ?? throw new InvalidInputException($"Line {number} of the input is null but must be {expected} in JSON.");
        }
        catch (JsonException e)
        {
            throw new InvalidInputException($"Line {number} of the input is not {expected} in JSON.", e);
        }
    }
}
