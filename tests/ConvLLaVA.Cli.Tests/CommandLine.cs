using System.Diagnostics;
using Xunit;

namespace ConvLLaVA.Cli.Tests;

/// <summary>Runs the program as a person does: another process, its two streams and its exit code.</summary>
internal sealed record CommandLine(int ExitCode, string Output, string Error)
{
    private static readonly string Program = Path.Combine(AppContext.BaseDirectory, "convllava.dll");

    /// <summary>Runs <c>convllava</c> with <paramref name="arguments"/>.</summary>
    public static CommandLine Run(params string[] arguments) => RunWithInput("", arguments);

    /// <summary>Runs <c>convllava</c> with <paramref name="input"/> on its standard input.</summary>
    public static CommandLine RunWithInput(string input, params string[] arguments) => RunIn(new Dictionary<string, string?>(), input, arguments);

    /// <summary>The same with environment variables set, or removed where the value is null.</summary>
    public static CommandLine RunIn(IReadOnlyDictionary<string, string?> environment, string input, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet") { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        start.ArgumentList.Add(Program);
        foreach (string argument in arguments) start.ArgumentList.Add(argument);
        foreach ((string name, string? value) in environment) start.Environment[name] = value;
        using Process process = Process.Start(start)!;
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> error = process.StandardError.ReadToEndAsync();
        process.StandardInput.Write(input);
        process.StandardInput.Close();
        process.WaitForExit();
        return new CommandLine(process.ExitCode, output.Result, error.Result);
    }

    /// <summary>Requires bad input's behaviour: exit code 2, nothing on stdout, one sentence on stderr that holds
    /// <paramref name="words"/>, and no stack trace.</summary>
    public void IsBadInput(params string[] words)
    {
        Assert.True(ExitCode == 2, $"exit code {ExitCode}, stderr: {Error}");
        Assert.Equal("", Output);
        string line = Assert.Single(Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.DoesNotContain("   at ", line);
        foreach (string word in words) Assert.Contains(word, line);
    }

    /// <summary>Requires success and gives what was printed.</summary>
    public string Succeeds()
    {
        Assert.True(ExitCode == 0, $"exit code {ExitCode}, stderr: {Error}");
        return Output;
    }
}
