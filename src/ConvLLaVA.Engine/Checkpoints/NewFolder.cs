using System.Globalization;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Writes folders that appear only once they are complete.</summary>
internal static class NewFolder
{
    /// <summary>Has a folder beside <paramref name="folder"/> filled and puts it in its place.</summary>
    /// <param name="folder">Where; must not exist or be empty.</param>
    /// <param name="fill">Fills the folder it is given, which it must make.</param>
    /// <exception cref="InvalidInputException">The folder is taken or cannot be written.</exception>
    public static void Build(string folder, Action<string> fill)
    {
        string target = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder));
        if (File.Exists(target) || (Directory.Exists(target) && Directory.EnumerateFileSystemEntries(target).Any()))
            throw new InvalidInputException($"{folder} exists and is not empty; give a folder that does not exist yet.");
        string partial = string.Create(CultureInfo.InvariantCulture, $"{target}.{Environment.ProcessId}.partial");
        try
        {
            if (Path.GetDirectoryName(target) is { } parent) Directory.CreateDirectory(parent);
            fill(partial);
            if (Directory.Exists(target)) Directory.Delete(target);
            Directory.Move(partial, target);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"{folder} cannot be written: {error.Message}", error);
        }
        finally
        {
            if (Directory.Exists(partial)) Directory.Delete(partial, recursive: true);
        }
    }

    /// <summary>Refuses to begin what the disk has no room for.</summary>
    /// <exception cref="InvalidInputException">It has not.</exception>
    public static void RequireRoom(string target, long bytes)
    {
        string existing = Path.GetFullPath(target);
        while (!Directory.Exists(existing)) existing = Path.GetDirectoryName(existing)!;
        long free = new DriveInfo(existing).AvailableFreeSpace;
        if (free < bytes) throw new InvalidInputException(string.Create(CultureInfo.InvariantCulture, $"The checkpoint takes {bytes / 1e9:F1} GB but only {free / 1e9:F1} GB are free at {existing}."));
    }
}
