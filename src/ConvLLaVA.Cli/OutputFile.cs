using ConvLLaVA.Engine;

namespace ConvLLaVA.Cli;

/// <summary>A text file that is asked for at the start and written at the end: that it cannot be written is known before the work, and a failure leaves
/// what was there.</summary>
internal sealed class OutputFile : IDisposable
{
    private readonly string _path;
    private readonly string _partial;

    /// <exception cref="InvalidInputException">The file cannot be written.</exception>
    public OutputFile(string path)
    {
        _path = path;
        _partial = path + "." + Environment.ProcessId.ToString(System.Globalization.CultureInfo.InvariantCulture) + ".tmp";
        if (Directory.Exists(path)) throw new InvalidInputException($"{path} cannot be written: it is a folder.");
        Guarded(() => File.WriteAllText(_partial, ""));
    }

    /// <summary>Puts <paramref name="text"/> in the file's place.</summary>
    public void Complete(string text) => Guarded(() =>
    {
        File.WriteAllText(_partial, text + "\n");
        File.Move(_partial, _path, overwrite: true);
    });

    /// <summary>The same for what writes itself.</summary>
    public void Complete(Action<Stream> write) => Guarded(() =>
    {
        using (FileStream stream = File.Create(_partial)) write(stream);
        File.Move(_partial, _path, overwrite: true);
    });

    public void Dispose() => File.Delete(_partial);

    private void Guarded(Action work)
    {
        try
        {
            work();
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"{_path} cannot be written: {error.Message}", error);
        }
    }
}
