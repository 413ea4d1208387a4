using System.CommandLine;
using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Instruments;

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
        var profile = new Option<string?>("--profile") { Description = "Show on stderr where the time went, and write a trace for chrome://tracing to this file when one is named.", HelpName = "FILE.json", Arity = ArgumentArity.ZeroOrOne };
        prompt.AddTo(command);
        generation.AddTo(command);
        model.AddTo(command);
        command.Add(json);
        command.Add(profile);
        command.SetAction(async (parsed, cancellation) =>
        {
            // All that can be wrong with the command line is said before a model is loaded.
            PromptRequest request = prompt.Request(parsed);
            GenerationOptions options = generation.Options(parsed);
            Profiler? profiler = parsed.GetResult(profile) is { Implicit: false } ? new Profiler() : null;
            using OutputFile? trace = parsed.GetValue(profile) is { } path ? new OutputFile(path) : null;
            await using ConvLlava engine = await model.LoadAsync(parsed, cancellation, profiler);
            profiler?.Start();
            if (parsed.GetValue(json))
            {
                GenerationResult result = await engine.AnswerAsync(request, options, cancellation);
                Console.Out.WriteLine(JsonSerializer.Serialize(RunReport.From(result, engine.RenderPrompt(request)), CliJson.Default.RunReport));
                Show(profiler, trace);
                return Program.Done;
            }
            await foreach (GenerationUpdate update in engine.GenerateAsync(request, options, cancellation))
            {
                Console.Out.Write(update.Text);
                Console.Out.Flush();
            }
            Console.Out.WriteLine();
            Show(profiler, trace);
            return Program.Done;
        });
        return command;
    }

    private static void Show(Profiler? profiler, OutputFile? trace)
    {
        if (profiler is null) return;
        IReadOnlyList<ProfileEvent> events = profiler.Stop();
        ProfileOutput.Print(events, null, Console.Error);
        trace?.Complete(stream => ProfileReport.WriteTrace(stream, events));
    }
}
