using System.CommandLine;
using System.Text.Json;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava selftest bindings</c>: the bindings to NVIDIA's libraries, as far as that goes without a GPU.</summary>
internal static class SelftestBindingsCommand
{
    public static Command Create()
    {
        var command = new Command("bindings", "Try the bindings against whichever of driver, NVRTC and cuBLASLt are installed; needs no GPU.");
        var preset = new Option<string>("--preset") { Description = $"Whose matrix products are described to cuBLASLt: {string.Join(", ", SyntheticPreset.All.Select(preset => preset.Name))}.", DefaultValueFactory = _ => "7b-1536", HelpName = "NAME" };
        var json = new Option<string?>("--json") { Description = "Also write the result to this file.", HelpName = "FILE" };
        command.Add(preset);
        command.Add(json);
        command.SetAction((parsed, cancellation) => Task.Run(() =>
        {
            string model = $"synth:{SyntheticPreset.Get(parsed.GetValue(preset)!).Name}";
            using OutputFile? file = parsed.GetValue(json) is { } path ? new OutputFile(path) : null;
            BindingCheck[] checks = [.. BindingsTest.Run(model, [DType.Float16, DType.BFloat16, DType.Float32])];
            foreach (BindingCheck check in checks) Console.Out.WriteLine($"{check.Status,-10}{check.Name}: {check.Detail}");
            file?.Complete(JsonSerializer.Serialize(checks, InstrumentJson.Default.BindingCheckArray));
            return checks.All(check => check.Passed) ? Program.Done : Program.Failed;
        }, cancellation));
        return command;
    }
}
