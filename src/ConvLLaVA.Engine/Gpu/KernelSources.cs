using System.Reflection;
using ConvLLaVA.Cuda;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>The texts of the kernels: those embedded in this assembly, or files of a folder that stand in their place.</summary>
internal sealed class KernelSources
{
    /// <summary>Environment variable that names a folder of kernels.</summary>
    public const string FolderVariable = "CONVLLAVA_KERNELS";

    private const string Prefix = "kernels/";
    private readonly Dictionary<string, string> _texts = [];
    private readonly Lock _gate = new();

    /// <summary>Kernels of <paramref name="folder"/>, and the embedded ones for files that it does not have; null looks at the environment.</summary>
    /// <exception cref="InvalidInputException">The folder does not exist.</exception>
    public KernelSources(string? folder = null)
    {
        Folder = folder ?? (Environment.GetEnvironmentVariable(FolderVariable) is { Length: > 0 } named ? named : null);
        if (Folder is not null && !Directory.Exists(Folder))
            throw new InvalidInputException($"The kernel folder {Folder} does not exist.");
    }

    /// <summary>The folder that stands in for the embedded kernels, or null.</summary>
    public string? Folder { get; }

    /// <summary>Names of the embedded kernel files, headers not included.</summary>
    public static IReadOnlyList<string> Embedded { get; } = [.. typeof(KernelSources).Assembly.GetManifestResourceNames()
        .Where(name => name.StartsWith(Prefix, StringComparison.Ordinal) && name.EndsWith(".cu", StringComparison.Ordinal))
        .Select(name => name[Prefix.Length..]).Order(StringComparer.Ordinal)];

    /// <summary>Where a file comes from, for messages.</summary>
    public string NameOf(string file) => Folder is not null && File.Exists(Path.Combine(Folder, file)) ? Path.Combine(Folder, file) : file;

    /// <summary>The text of a file.</summary>
    /// <exception cref="InvalidInputException">It cannot be read, or there is none.</exception>
    public string Text(string file)
    {
        lock (_gate)
        {
            if (!_texts.TryGetValue(file, out string? text)) _texts.Add(file, text = Read(file));
            return text;
        }
    }

    /// <summary>All files that <paramref name="file"/> includes, directly or through others, in order of first mention.</summary>
    public IReadOnlyList<NvrtcHeader> Includes(string file)
    {
        var found = new List<NvrtcHeader>();
        Collect(file, found);
        return found;
    }

    private void Collect(string file, List<NvrtcHeader> found)
    {
        foreach (string line in Text(file).Split('\n'))
        {
            string trimmed = line.Trim();
            if (!trimmed.StartsWith("#include \"", StringComparison.Ordinal)) continue;
            int end = trimmed.IndexOf('"', 10);
            if (end < 0) continue;
            string name = trimmed[10..end];
            if (found.Exists(header => header.Name == name)) continue;
            found.Add(new NvrtcHeader(name, Text(name)));
            Collect(name, found);
        }
    }

    private string Read(string file)
    {
        string path = NameOf(file);
        try
        {
            if (path != file) return File.ReadAllText(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"The kernel {path} cannot be read: {error.Message}", error);
        }
        using Stream? stream = Assembly.GetExecutingAssembly().GetManifestResourceStream(Prefix + file)
            ?? throw new InvalidInputException($"There is no kernel file {file}{(Folder is null ? "" : $" in {Folder} or in the engine")}.");
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }
}

/// <summary>One specialisation of a kernel file.</summary>
/// <param name="File">Name of the file.</param>
/// <param name="Constants">Its constants as <c>NAME=VALUE</c>, in the order they are given.</param>
internal sealed record KernelSpec(string File, string Constants)
{
    /// <summary>A specialisation with these constants.</summary>
    public static KernelSpec Of(string file, params string[] constants) => new(file, string.Join(' ', constants));

    /// <summary>The constants as compiler options.</summary>
    public IEnumerable<string> Defines => Constants.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(constant => $"-D{constant}");

    /// <inheritdoc/>
    public override string ToString() => $"{File} {Constants}".TrimEnd();
}
