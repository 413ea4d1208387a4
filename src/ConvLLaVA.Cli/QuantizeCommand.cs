using System.CommandLine;
using System.Globalization;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava quantize</c>: writes a checkpoint with weights in fewer bits.</summary>
internal static class QuantizeCommand
{
    public static Command Create()
    {
        var command = new Command("quantize", "Write a checkpoint with quantised weights, which then loads at once.");
        var source = new Argument<string>("SRC") { Description = "Checkpoint folder, or synth:PRESET for random weights." };
        QuantizeOptions quantize = QuantizeOptions.ForWriting();
        var output = new Option<string>("--out", "-o") { Description = "The folder to write; must not exist or be empty.", HelpName = "DIR", Required = true };
        var tower = new Option<string?>("--vision-tower") { Description = "Folder of the vision tower, ahead of where the checkpoint says.", HelpName = "DIR" };
        var threads = new Option<int>("--threads") { Description = "Threads to quantise on; 0 for all.", HelpName = "N" };
        command.Add(source);
        quantize.AddTo(command);
        foreach (Option option in (Option[])[output, tower, threads]) command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            QuantOptions options = quantize.Options(parsed)!;
            string from = parsed.GetRequiredValue(source), folder = parsed.GetValue(output)!;
            int workers = parsed.GetValue(threads);
            if (workers < 0) throw new InvalidInputException($"--threads is {workers} but must be 0 or more.");
            IReadOnlyCollection<string> skipped = await LoadingBar.RunAsync("quantising", progress => Task.Run(
                () => QuantizedCheckpoint.Write(from, folder, options, parsed.GetValue(tower), workers, progress, cancellation), cancellation));
            if (skipped.Count > 0)
                Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{skipped.Count} matrices have an odd number of inputs and stay as they are stored, such as {skipped.First()}"));
            long bytes = Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Sum(file => new FileInfo(file).Length);
            Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{folder}: {options.Format.Name()}, {bytes / 1e6:F1} MB"));
            return Program.Done;
        });
        return command;
    }
}
