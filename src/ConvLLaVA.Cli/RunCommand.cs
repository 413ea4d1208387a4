using System.CommandLine;
using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava run</c>: one request, one answer on stdout.</summary>
internal static class RunCommand
{
    public static Command Create()
    {
        var command = new Command("run", "Answer one prompt about any number of images.");
        var prompt = new PromptOptions();
        var model = new ModelOptions();
        var generation = new GenerationFlags();
        var json = new Option<bool>("--json") { Description = "Print one JSON object with the answer and how it came about." };
        prompt.AddTo(command);
        generation.AddTo(command);
        model.AddTo(command);
        command.Add(json);
        command.SetAction(async (parsed, cancellation) =>
        {
            // All that can be wrong with the command line is said before a model is loaded.
            PromptRequest request = prompt.Request(parsed);
            GenerationOptions options = generation.Options(parsed);
            await using ConvLlava engine = await model.LoadAsync(parsed, cancellation);
            if (parsed.GetValue(json))
            {
                GenerationResult result = await engine.AnswerAsync(request, options, cancellation);
                Console.Out.WriteLine(JsonSerializer.Serialize(RunReport.From(result, engine.RenderPrompt(request)), CliJson.Default.RunReport));
                return Program.Done;
            }
            await foreach (GenerationUpdate update in engine.GenerateAsync(request, options, cancellation))
            {
                Console.Out.Write(update.Text);
                Console.Out.Flush();
            }
            Console.Out.WriteLine();
            return Program.Done;
        });
        return command;
    }
}
