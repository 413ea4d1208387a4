using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava selftest</c>: every operation of a device at the shapes of a model, against a slow reference.</summary>
internal static class SelftestCommand
{
    public static Command Create()
    {
        var command = new Command("selftest", "Check every operation of a device against a slow reference, on random data.");
        var device = new DeviceOptions();
        var preset = new Option<string?>("--preset") { Description = $"Whose shapes: {string.Join(", ", SyntheticPreset.All.Select(preset => preset.Name))}; without it 7b-1536, and tiny with --small.", HelpName = "NAME" };
        var small = new Option<bool>("--small") { Description = "Small awkward shapes instead of a model's: for slow devices and slow tools." };
        var json = new Option<string?>("--json") { Description = "Also write the result to this file.", HelpName = "FILE" };
        command.Add(SelftestBindingsCommand.Create());
        device.AddTo(command);
        command.Add(preset);
        command.Add(small);
        command.Add(json);
        command.SetAction((parsed, cancellation) => Task.Run(() =>
        {
            bool few = parsed.GetValue(small);
            LoadOptions options = device.LoadOptions(parsed);
            var selftest = new Selftest(options, SyntheticPreset.Get(parsed.GetValue(preset) ?? (few ? "tiny" : "7b-1536")), few);
            using OutputFile? file = parsed.GetValue(json) is { } path ? new OutputFile(path) : null;
            IReadOnlyList<SelftestCheck> checks = selftest.Run(Print, cancellation);
            int failed = checks.Count(check => !check.Passed);
            string type = (options.WeightType ?? DType.BFloat16).Name();
            Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{selftest.BackendName}, {type}: {checks.Count - failed} of {checks.Count} passed"));
            file?.Complete(JsonSerializer.Serialize(new SelftestReport(selftest.BackendName, type, failed == 0, checks), InstrumentJson.Default.SelftestReport));
            return failed == 0 ? Program.Done : Program.Failed;
        }, cancellation));
        return command;
    }

    private static void Print(SelftestCheck check)
    {
        string verdict = check.Passed ? "ok" : "FAIL";
        Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{verdict,-5}{check.Name,-32}{check.Error,8:0.0e-0} of {check.Tolerance:0.0e-0}  {check.Milliseconds,9:F2} ms  {check.Shape}{(check.Failure is null ? "" : ": " + check.Failure)}"));
    }
}

/// <summary>What <c>selftest --json</c> writes.</summary>
internal sealed record SelftestReport(string Backend, string Dtype, bool Passed, IReadOnlyList<SelftestCheck> Checks);
