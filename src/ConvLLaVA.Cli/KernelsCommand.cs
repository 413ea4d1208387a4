using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava kernels</c>: which CUDA kernels a model uses, and compiling them where there is no GPU.</summary>
internal static class KernelsCommand
{
    private const string DefaultArchitectures = "sm_80,sm_86,sm_89,sm_90a";

    public static Command Create() => new("kernels", "List or compile the CUDA kernels of a model; needs no GPU and no driver.") { List(), Build() };

    private static Command List()
    {
        var command = new Command("list", "List every kernel specialisation that a model uses.");
        var choice = new Choice();
        choice.AddTo(command);
        command.SetAction(parsed =>
        {
            var table = new TextTable("kernel", "<constants", "<dtype", "<architecture");
            foreach (KernelVariant variant in choice.Of(parsed).Variants) table.Add(variant.File, variant.Constants, variant.Dtype, $"sm_{variant.Architecture}");
            table.WriteTo(Console.Out);
            return Program.Done;
        });
        return command;
    }

    private static Command Build()
    {
        var command = new Command("build", "Compile them into a folder that serves as CONVLLAVA_KERNEL_CACHE where there is no compiler.");
        var choice = new Choice();
        var output = new Option<string>("--out", "-o") { Description = "The folder.", HelpName = "DIR", Required = true };
        var report = new Option<string?>("--report") { Description = "Write what the compiler made of each: registers, shared memory, spills, occupancy, bytes, flops, and the time that a datasheet allows (JSON when the name ends in .json, else Markdown).", HelpName = "FILE" };
        var gpu = new Option<string?>("--gpu") { Description = $"The GPU whose datasheet bounds the times of the report: {string.Join(", ", DatasheetGpu.All.Select(known => known.Name))}.", HelpName = "NAME" };
        choice.AddTo(command);
        foreach (Option option in (Option[])[output, report, gpu]) command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            DatasheetGpu? datasheet = parsed.GetValue(gpu) is { } name ? DatasheetGpu.Get(name) : null;
            KernelBuild build = choice.Of(parsed);
            string folder = parsed.GetValue(output)!;
            using OutputFile? file = parsed.GetValue(report) is { } path ? new OutputFile(path) : null;
            KernelReport found = await LoadingBar.RunAsync("compiling", progress => Task.Run(() =>
                build.Run(folder, datasheet, progress is null ? null : new Shares(progress), cancellation), cancellation));
            file?.Complete(parsed.GetValue(report)!.EndsWith(".json", StringComparison.OrdinalIgnoreCase) ? JsonSerializer.Serialize(found, InstrumentJson.Default.KernelReport) : Markdown(found));
            int spilling = found.Rows.Count(row => row.SpillBytes > 0);
            Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{build.Variants.Count} kernels compiled by {found.Compiler} into {folder}{(spilling > 0 ? $"; {spilling} of them spill registers" : "")}"));
            return Program.Done;
        });
        return command;
    }

    private static string Markdown(KernelReport report)
    {
        var text = new StringBuilder();
        text.AppendLine(CultureInfo.InvariantCulture, $"Kernels of {report.Model}{(report.Quantized is { } format ? $" in {format}" : "")}, compiled by {report.Compiler}. Work is for one picture, one prompt, or one decoding step at {report.Context} tokens of context.");
        if (report.Gpu is not null) text.AppendLine(CultureInfo.InvariantCulture, $"The bound is the time that the datasheet of {report.Gpu} allows; it is no measurement.");
        text.AppendLine();
        text.AppendLine("| kernel | constants | dtype | target | registers | shared | dynamic | stack | spills | threads | blocks/SM | occupancy | work | launches | MB | GFLOP | bound ms |");
        text.AppendLine("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        foreach (KernelRow row in report.Rows)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"| {row.Kernel} | {row.Constants} | {row.Dtype} | {row.Target} | {row.Registers} | {row.SharedBytes} | {row.DynamicSharedBytes} | {row.StackBytes} | {row.SpillBytes} | {row.Threads} | {row.BlocksPerMultiprocessor} | {row.OccupancyPercent} % | {row.Work} | {(row.Launches > 0 ? row.Launches : "")} | {(row.Work is null ? "" : (row.Bytes / 1e6).ToString("F1", CultureInfo.InvariantCulture))} | {(row.Work is null ? "" : (row.Flops / 1e9).ToString("F2", CultureInfo.InvariantCulture))} | {row.BoundMs?.ToString("F4", CultureInfo.InvariantCulture)} |");
        }
        return text.ToString().TrimEnd();
    }

    /// <summary>The options that say which kernels.</summary>
    private sealed class Choice
    {
        private readonly Option<string?> _model = new("--model", "-m") { Description = "Checkpoint folder; without it and --preset the demo model's.", HelpName = "DIR" };
        private readonly Option<string?> _preset = new("--preset") { Description = $"Sizes of a published model instead: {string.Join(", ", SyntheticPreset.All.Select(preset => preset.Name))}.", HelpName = "NAME" };
        private readonly Option<string[]> _dtypes = new("--dtype") { Description = "Precision; may be given several times; without it the model's own.", HelpName = "TYPE", DefaultValueFactory = _ => [] };
        private readonly QuantizeOptions _quantize = new();
        private readonly Option<string> _arch = new("--arch") { Description = "Architectures, separated by commas.", HelpName = "sm_NN,...", DefaultValueFactory = _ => DefaultArchitectures };
        private readonly Option<string?> _kernels = new("--kernels") { Description = "Folder of CUDA kernels that stand in for the built-in ones.", HelpName = "DIR" };

        public void AddTo(Command command)
        {
            foreach (Option option in (Option[])[_model, _preset, _dtypes, _arch, _kernels]) command.Add(option);
            _quantize.AddTo(command);
        }

        /// <exception cref="InvalidInputException">A value is not understood.</exception>
        public KernelBuild Of(ParseResult parsed)
        {
            (string? folder, string? preset) = (parsed.GetValue(_model), parsed.GetValue(_preset));
            if (folder is not null && preset is not null) throw new InvalidInputException("Both --model and --preset were given, but only one can be meant.");
            DType[] types = [.. parsed.GetValue(_dtypes)!.SelectMany(text => text.Split(',')).Select(DTypeNames.Parse).Distinct()];
            int[] architectures = [.. parsed.GetValue(_arch)!.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Select(Architecture).Distinct()];
            if (architectures.Length == 0) throw new InvalidInputException("--arch is empty but must be architectures such as sm_80,sm_90a.");
            return new KernelBuild(preset is not null ? $"synth:{SyntheticPreset.Get(preset).Name}" : folder ?? DemoModel.Locate(), types, architectures, parsed.GetValue(_kernels), _quantize.Options(parsed));
        }

        private static int Architecture(string text)
        {
            string number = text.StartsWith("sm_", StringComparison.Ordinal) ? text[3..].TrimEnd('a') : "";
            return int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out int architecture) && architecture is >= 50 and < 1000
                ? architecture
                : throw new InvalidInputException($"--arch holds '{text}' but must be architectures such as sm_80,sm_90a.");
        }
    }

    private sealed class Shares(IProgress<LoadProgress> progress) : IProgress<double>
    {
        public void Report(double value) => progress.Report(new LoadProgress("compiling", value));
    }
}
