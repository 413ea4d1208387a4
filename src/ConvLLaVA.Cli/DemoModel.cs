using ConvLLaVA.Engine;

namespace ConvLLaVA.Cli;

/// <summary>The small trained model that ships with the program.</summary>
internal static class DemoModel
{
    private const string Name = "convllava-demo";

    /// <summary>Its folder: beside the program, where the build puts it.</summary>
    /// <exception cref="InvalidInputException">It is not there.</exception>
    public static string Locate()
    {
        string folder = Path.Combine(AppContext.BaseDirectory, "models", Name);
        return File.Exists(Path.Combine(folder, "config.json"))
            ? folder
            : throw new InvalidInputException($"No --model was given and the demo model is not at '{folder}'.");
    }
}
