using System.CommandLine;
using System.Globalization;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Synthetic;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava synth</c>: a checkpoint with random weights in the published layout.</summary>
internal static class SynthCommand
{
    public static Command Create()
    {
        var command = new Command("synth", "Write a checkpoint with random weights in the published layout, for tests and measurements.");
        var preset = new Option<string>("--preset") { Description = $"Sizes: {string.Join(", ", SyntheticPreset.All.Select(preset => preset.Name))}.", HelpName = "NAME", Required = true };
        var dtype = new Option<string>("--dtype") { Description = "Type of the weights: float32, float16 or bfloat16.", DefaultValueFactory = _ => "bfloat16", HelpName = "TYPE" };
        var seed = new Option<ulong>("--seed") { Description = "The same seed gives the same bytes, on any number of threads.", HelpName = "N" };
        var output = new Option<string>("--out", "-o") { Description = "The folder to write; must not exist or be empty.", HelpName = "DIR", Required = true };
        var threads = new Option<int>("--threads") { Description = "Threads to write with; 0 for all.", HelpName = "N" };
        var configOnly = new Option<bool>("--config-only") { Description = "Write the configurations and the tokenizer, no weights." };
        foreach (Option option in (Option[])[preset, dtype, seed, output, threads, configOnly]) command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            SyntheticPreset sizes = SyntheticPreset.Get(parsed.GetValue(preset)!);
            Engine.Tensors.DType type = DTypeNames.Parse(parsed.GetValue(dtype)!);
            string folder = parsed.GetValue(output)!;
            int workers = parsed.GetValue(threads);
            if (workers < 0) throw new InvalidInputException($"--threads is {workers} but must be 0 or more.");
            if (parsed.GetValue(configOnly))
            {
                SyntheticCheckpoint.WriteConfiguration(folder, sizes, type);
                return Program.Done;
            }
            await LoadingBar.RunAsync("writing", progress => Task.Run(() =>
            {
                SyntheticCheckpoint.Write(folder, sizes, type, parsed.GetValue(seed), workers, progress, cancellation);
                return true;
            }, cancellation));
            Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{folder}: {sizes.Name}, seed {parsed.GetValue(seed)}, random weights"));
            return Program.Done;
        });
        return command;
    }
}
