using System.Diagnostics;
using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>All that the finder reads of the machine, so that tests can give it another one.</summary>
internal sealed record FinderEnvironment
{
    /// <summary>Folder that explicit names start from: libraries in it, a toolkit's root, or a folder with <c>site-packages</c>.</summary>
    public const string ExplicitVariable = "CONVLLAVA_CUDA_PATH";

    /// <summary>Set when <see cref="ExplicitVariable"/> holds the emulated device.</summary>
    public const string EmulatedVariable = "CONVLLAVA_EMULATED_DEVICE";

    /// <summary>Reads an environment variable; null when it is not set.</summary>
    public required Func<string, string?> Variable { get; init; }

    /// <summary>Loads a file or bare name, or throws <see cref="DllNotFoundException"/> or <see cref="BadImageFormatException"/> with the
    /// loader's reason.</summary>
    public required Func<string, nint> Load { get; init; }

    /// <summary>Paths of the libraries in this process.</summary>
    public required Func<IReadOnlyList<string>> LoadedModules { get; init; }

    /// <summary>Folder of the application.</summary>
    public required string ApplicationFolder { get; init; }

    /// <summary>The user's folder; empty when there is none.</summary>
    public required string Home { get; init; }

    /// <summary>The working folder.</summary>
    public required string CurrentFolder { get; init; }

    /// <summary>True on Windows.</summary>
    public required bool Windows { get; init; }

    /// <summary>True on 64-bit Arm.</summary>
    public bool Arm { get; init; }

    /// <summary>What absolute folders such as <c>/usr/local</c> start with.</summary>
    public string Root { get; init; } = "/";

    /// <summary>This machine and process.</summary>
    public static FinderEnvironment Current { get; } = new()
    {
        Variable = Environment.GetEnvironmentVariable,
        Load = NativeLibrary.Load,
        LoadedModules = ModulesOfThisProcess,
        ApplicationFolder = AppContext.BaseDirectory,
        Home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile),
        CurrentFolder = Environment.CurrentDirectory,
        Windows = OperatingSystem.IsWindows(),
        Arm = RuntimeInformation.ProcessArchitecture == Architecture.Arm64,
    };

    /// <summary>The explicit folder, or null.</summary>
    public string? ExplicitFolder => Set(ExplicitVariable) is { } folder ? Absolute(folder) : null;

    /// <summary>True when the emulated device is asked for.</summary>
    public bool Emulated => Set(EmulatedVariable) is { } value && value is not "0";

    /// <summary>Name of the platform as NuGet spells it, e.g. <c>linux-x64</c>.</summary>
    public string RuntimeIdentifier => $"{(Windows ? "win" : "linux")}-{(Arm ? "arm64" : "x64")}";

    /// <summary>A variable that is set to more than spaces, or null.</summary>
    public string? Set(string name) => Variable(name) is { } value && !string.IsNullOrWhiteSpace(value) ? value.Trim() : null;

    /// <summary>A path from the working folder on.</summary>
    public string Absolute(string path) => Path.GetFullPath(path, CurrentFolder);

    private static IReadOnlyList<string> ModulesOfThisProcess()
    {
        try
        {
            using Process process = Process.GetCurrentProcess();
            return [.. process.Modules.Cast<ProcessModule>().Select(module => module.FileName).Where(name => name is not null)];
        }
        catch (Exception error) when (error is InvalidOperationException or System.ComponentModel.Win32Exception or NotSupportedException or PlatformNotSupportedException)
        {
            return [];
        }
    }
}
