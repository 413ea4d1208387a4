using Xunit;

namespace ConvLLaVA.Cli.Tests;

/// <summary><c>convllava synth</c> and models named <c>synth:…</c>.</summary>
public sealed class SynthTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    [Fact]
    public void Writes_a_checkpoint_that_inspect_and_run_accept()
    {
        string model = Path.Combine(_folder, "model");
        Assert.Equal("", CommandLine.Run("synth", "--preset", "tiny", "--dtype", "fp16", "--seed", "3", "--out", model).Succeeds());
        Assert.Contains("float16", CommandLine.Run("inspect", model).Succeeds());
        string[] question = ["--prompt", "what is this", "--image", Path.Combine(Repository.Root, "samples", "shapes-1.png"), "-n", "5"];
        string stored = CommandLine.Run(["run", "--model", model, .. question]).Succeeds();
        Assert.Equal(stored, CommandLine.Run(["run", "--model", "synth:tiny:3", "--dtype", "float16", .. question]).Succeeds());
    }

    [Fact]
    public void Refuses_a_folder_that_is_taken()
    {
        File.WriteAllText(Path.Combine(_folder, "precious"), "x");
        CommandLine.Run("synth", "--preset", "tiny", "--out", _folder).IsBadInput(_folder, "not empty");
        Assert.Equal([Path.Combine(_folder, "precious")], Directory.GetFileSystemEntries(_folder));
    }

    [Fact]
    public void Refuses_an_unknown_preset() => CommandLine.Run("synth", "--preset", "13b", "--out", Path.Combine(_folder, "x")).IsBadInput("13b", "7b-1536");

    [Fact]
    public void Refuses_an_integer_type() => CommandLine.Run("synth", "--preset", "tiny", "--dtype", "int8", "--out", Path.Combine(_folder, "x")).IsBadInput("int8", "bfloat16");

    [Fact]
    public void Refuses_a_model_name_that_is_none() => CommandLine.Run("run", "--model", "synth:13b", "--prompt", "x").IsBadInput("13b", "tiny");

    [Fact]
    public void Refuses_to_inspect_what_has_no_files() => CommandLine.Run("inspect", "synth:7b-1536").IsBadInput("synth:7b-1536", "convllava synth");

    [Fact]
    public void Refuses_what_does_not_fit_on_the_disk()
    {
        // 13.5 GB of half precision: only where the temporary folder is smaller.
        if (new DriveInfo(_folder).AvailableFreeSpace > 16_300_000_000) Assert.Skip("the disk has room for a 7b checkpoint");
        CommandLine.Run("synth", "--preset", "7b-768", "--out", Path.Combine(_folder, "x")).IsBadInput("GB are free");
        Assert.Empty(Directory.GetFileSystemEntries(_folder));
    }
}
