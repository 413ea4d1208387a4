using System.Diagnostics;
using System.Globalization;

namespace ConvLLaVA.Peers;

/// <summary>Pillow in a process of its own, which waits for orders and takes its own times.</summary>
internal sealed class PillowProcess : IDisposable
{
    private readonly Process _process;

    public PillowProcess(string python)
    {
        string script = Path.Combine(AppContext.BaseDirectory, "pillow_peer.py");
        _process = Process.Start(new ProcessStartInfo(python, [script]) { RedirectStandardInput = true, RedirectStandardOutput = true })
            ?? throw new IOException($"{python} does not start.");
        Versions = Ask("versions");
    }

    /// <summary>Versions of Pillow and what it uses.</summary>
    public string Versions { get; }

    /// <summary>Runs a command and gives its milliseconds and the digest of its samples.</summary>
    public (double Ms, string Digest) Run(string command, string path, int side)
    {
        string[] answer = Ask(string.Create(CultureInfo.InvariantCulture, $"{command}\t{path}\t{side}")).Split('\t');
        return (double.Parse(answer[0], CultureInfo.InvariantCulture), answer[1]);
    }

    private string Ask(string line)
    {
        _process.StandardInput.WriteLine(line);
        _process.StandardInput.Flush();
        return _process.StandardOutput.ReadLine() ?? throw new IOException("Pillow's process has ended; its message is above.");
    }

    public void Dispose()
    {
        _process.StandardInput.Close();
        _process.WaitForExit();
        _process.Dispose();
    }
}
