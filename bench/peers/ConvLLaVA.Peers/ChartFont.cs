using ConvLLaVA.Engine;
using ScottPlot;

namespace ConvLLaVA.Peers;

/// <summary>The letters of the pictures. The image library that the engine is built with looks for no fonts by itself.</summary>
internal static class ChartFont
{
    /// <summary>What the font is called once it is found.</summary>
    public const string Name = "peers";

    private static readonly string[] Files = ["DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf"];
    private static readonly string[] Folders = ["/usr/share/fonts", "/usr/local/share/fonts"];

    /// <summary>Finds a plain font of the system.</summary>
    /// <exception cref="InvalidInputException">There is none.</exception>
    public static void Load()
    {
        var options = new EnumerationOptions { RecurseSubdirectories = true, IgnoreInaccessible = true };
        string? found = Files.SelectMany(file => Folders.Where(Directory.Exists).SelectMany(folder => Directory.EnumerateFiles(folder, file, options))).FirstOrDefault();
        if (found is null) throw new InvalidInputException($"The pictures need a font: none of {string.Join(", ", Files)} is under {string.Join(" or ", Folders)} (Debian's package fonts-dejavu-core has the first).");
        Fonts.AddFontFile(Name, found);
    }
}
