using System.Diagnostics;
using System.Text.Json;
using Xunit;

namespace ConvLLaVA.Cuda.Tests;

/// <summary>Runs <c>convllava doctor</c> in its own process with its own environment.</summary>
internal static class Doctor
{
    private static readonly string[] Cleared = ["CONVLLAVA_CUDA_PATH", "CONVLLAVA_EMULATED_DEVICE", "CONVLLAVA_CPU", "CONVLLAVA_KERNEL_CACHE", "XDG_CACHE_HOME",
        "CUDA_PATH", "CUDA_HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "FAKE_CUDA_VERSION", "FAKE_CUDA_INIT", "FAKE_CUDA_DEVICES", "FAKE_CUDA_CC"];

    /// <summary>Text or JSON, as asked by <paramref name="arguments"/>; requires exit code 0 and silence on stderr.</summary>
    public static string Run(IReadOnlyDictionary<string, string> environment, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "convllava.dll"), "doctor", .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (string name in Cleared) start.Environment.Remove(name);
        foreach ((string name, string value) in environment) start.Environment[name] = value;
        using Process process = Process.Start(start)!;
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> error = process.StandardError.ReadToEndAsync();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"exit code {process.ExitCode}, stderr: {error.Result}");
        Assert.Equal("", error.Result);
        Assert.DoesNotContain("   at ", output.Result);
        return output.Result;
    }

    /// <summary>The report of <c>--json</c>.</summary>
    public static JsonElement Json(params (string Name, string Value)[] environment) =>
        JsonDocument.Parse(Run(environment.ToDictionary(pair => pair.Name, pair => pair.Value), "--json")).RootElement;

    /// <summary>The report of one library.</summary>
    public static JsonElement Library(this JsonElement report, string name) =>
        report.GetProperty("cuda").GetProperty("libraries").EnumerateArray().Single(library => library.GetProperty("library").GetString() == name);

    /// <summary>A text field; null where it is null.</summary>
    public static string? Text(this JsonElement element, string name) => element.GetProperty(name).GetString();

    /// <summary>Why no GPU can be used.</summary>
    public static string? Reason(this JsonElement report) => report.GetProperty("cuda").Text("reason");
}
