using System.CommandLine;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava dump</c>: every named tensor of a request into a safetensors file, for comparison with PyTorch.</summary>
internal static class DumpCommand
{
    public static Command Create()
    {
        var command = new Command("dump", "Write every named tensor of a request into a safetensors file.");
        var output = new Option<string>("--out", "-o") { Description = "The file to write.", HelpName = "FILE.safetensors", Required = true };
        var tensors = new Option<string?>("--tensors") { Description = $"Only these, separated by commas; nothing later than the last is run. Known: {string.Join(", ", DumpTensors.Names)}.", HelpName = "NAME,..." };
        var prompt = new PromptOptions();
        var model = new ModelOptions();
        var generation = new GenerationFlags();
        prompt.AddTo(command);
        generation.AddTo(command);
        model.AddTo(command);
        command.Add(output);
        command.Add(tensors);
        command.SetAction(async (parsed, cancellation) =>
        {
            PromptRequest request = prompt.Request(parsed);
            GenerationOptions options = generation.Options(parsed);
            DumpTensors wanted = DumpTensors.Parse(parsed.GetValue(tensors));
            string path = parsed.GetValue(output)!;
            await using ConvLlava engine = await model.LoadAsync(parsed, cancellation);
            await engine.DumpAsync(request, options, wanted, path, cancellation);
            return Program.Done;
        });
        return command;
    }
}
