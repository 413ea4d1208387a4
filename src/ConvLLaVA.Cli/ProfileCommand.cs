using System.CommandLine;
using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Instruments;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava profile</c>: where the time of one request goes, operation by operation.</summary>
internal static class ProfileCommand
{
    public static Command Create()
    {
        var command = new Command("profile", "Run a request twice and show where the time of the second went, operation by operation.");
        var prompt = new PromptOptions();
        var model = new ModelOptions();
        var generation = new GenerationFlags();
        var trace = new Option<string?>("--trace") { Description = "Also write a trace for chrome://tracing or Perfetto.", HelpName = "FILE.json" };
        var json = new Option<string?>("--json") { Description = "Also write the table to this file.", HelpName = "FILE" };
        prompt.AddTo(command);
        generation.AddTo(command);
        model.AddTo(command);
        command.Add(trace);
        command.Add(json);
        command.SetAction(async (parsed, cancellation) =>
        {
            PromptRequest request = prompt.Request(parsed);
            GenerationOptions options = generation.Options(parsed);
            var profiler = new Profiler();
            LoadOptions loading = model.LoadOptions(parsed) with { Profiler = profiler };
            string folder = model.ModelFolder(parsed);
            using OutputFile? traceFile = parsed.GetValue(trace) is { } tracePath ? new OutputFile(tracePath) : null, tableFile = parsed.GetValue(json) is { } tablePath ? new OutputFile(tablePath) : null;
            Ceilings ceilings = await Task.Run(() => Benchmark.MeasureCeilings(folder, loading), cancellation);
            await using ConvLlava engine = await LoadingBar.RunAsync(progress => ConvLlava.LoadAsync(folder, loading, progress, cancellation));
            await engine.AnswerAsync(request, options, cancellation);
            profiler.Start();
            await engine.AnswerAsync(request, options, cancellation);
            IReadOnlyList<ProfileEvent> events = profiler.Stop();
            ProfileOutput.Print(events, ceilings, Console.Out);
            traceFile?.Complete(stream => ProfileReport.WriteTrace(stream, events));
            tableFile?.Complete(JsonSerializer.Serialize([.. ProfileReport.Lines(events, ceilings)], InstrumentJson.Default.ProfileLineArray));
            return Program.Done;
        });
        return command;
    }
}
