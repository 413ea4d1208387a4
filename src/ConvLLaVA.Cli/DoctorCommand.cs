using System.CommandLine;
using System.Text.Json;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava doctor</c>: what the engine finds on this machine and what it would use. Whatever it finds, it has done its
/// job: the exit code is 0.</summary>
internal static class DoctorCommand
{
    public static Command Create()
    {
        var command = new Command("doctor", "Say which devices, drivers and libraries are there, and what would be used.");
        var json = new Option<bool>("--json") { Description = "Print one JSON object." };
        command.Add(json);
        command.SetAction(parsed =>
        {
            DoctorReport report = DoctorReport.Create();
            if (parsed.GetValue(json)) Console.Out.WriteLine(JsonSerializer.Serialize(report, DoctorJson.Default.DoctorReport));
            else DoctorPrinter.Print(report, Console.Out);
            return Program.Done;
        });
        return command;
    }
}
