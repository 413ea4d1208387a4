namespace ConvLLaVA.Engine.Tests;

/// <summary>Finds the folders of the working tree that tests read.</summary>
internal static class Repository
{
    /// <summary>The folder that holds the solution file.</summary>
    public static string Root { get; } = FindRoot();

    /// <summary><c>tests/fixtures</c>.</summary>
    public static string Fixtures => Path.Combine(Root, "tests", "fixtures");

    /// <summary>The folder of shared data beside the checkout (the specification's golden vectors, the stock LLaMA
    /// vocabulary), or null. <c>CONVLLAVA_SHARED</c> overrides it.</summary>
    public static string? Shared
    {
        get
        {
            string folder = Environment.GetEnvironmentVariable("CONVLLAVA_SHARED") ?? Path.Combine(Root, "..", "shared");
            return Directory.Exists(folder) ? Path.GetFullPath(folder) : null;
        }
    }

    private static string FindRoot()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "ConvLLaVA.Engine.sln"))) return folder.FullName;
        }
        throw new InvalidOperationException("The tests must run inside the working tree: no ConvLLaVA.Engine.sln above " + AppContext.BaseDirectory);
    }
}
