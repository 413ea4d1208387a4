using System.Diagnostics;
using System.Text.Json;
using Xunit;

namespace ConvLLaVA.Cuda.Tests;

/// <summary>NVIDIA's real compiler and the facts of its ABI, which lie outside the repository: <c>CONVLLAVA_NVIDIA</c>, else
/// <c>CONVLLAVA_CUDA_PATH</c> as the test command sets it, else <c>../shared/cuda</c> beside the checkout.</summary>
internal static class NvidiaFolder
{
    private static readonly Lazy<string?> Nvrtc12Folder = new(Unpack);
    private static readonly Lazy<JsonElement> AbiFacts = new(() => JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Need(), "abi", "cuda-13.0.json"))).RootElement);

    /// <summary>The folder, or null where it is absent.</summary>
    public static string? Place { get; } = Locate();

    /// <summary>Functions, enums and structs of CUDA 13.0; skips the test where they are absent.</summary>
    public static JsonElement Abi
    {
        get
        {
            Need();
            return AbiFacts.Value;
        }
    }

    /// <summary>The folder; skips the test where it is absent.</summary>
    public static string Need()
    {
        if (Place is null) Assert.Skip("NVIDIA's compiler and ABI facts are absent: neither CONVLLAVA_NVIDIA nor ../shared/cuda is such a folder.");
        return Place!;
    }

    /// <summary>A folder with NVRTC 12.9 laid out as pip does; skips the test where it cannot be had.</summary>
    public static string NeedNvrtc12()
    {
        Need();
        if (Nvrtc12Folder.Value is null) Assert.Skip("NVRTC 12.9 could not be unpacked: it needs tar with xz.");
        return Nvrtc12Folder.Value!;
    }

    /// <summary>Names that a library exports, by the file <c>abi/exports-LIBRARY.txt</c>.</summary>
    public static HashSet<string> Exports(string library) => [.. File.ReadLines(Path.Combine(Need(), "abi", $"exports-{library}.txt"))];

    private static string? Locate()
    {
        string?[] places = [Environment.GetEnvironmentVariable("CONVLLAVA_NVIDIA"), Environment.GetEnvironmentVariable("CONVLLAVA_CUDA_PATH"), Path.Combine(Repository.Root, "..", "shared", "cuda")];
        string? found = places.FirstOrDefault(place => !string.IsNullOrEmpty(place) && File.Exists(Path.Combine(place, "abi", "cuda-13.0.json")));
        return found is null ? null : Path.GetFullPath(found);
    }

    private static string? Unpack()
    {
        string folder = TestFolder.Create("nvrtc12");
        try
        {
            using Process process = Process.Start(new ProcessStartInfo("tar", ["-xJf", Path.Combine(Place!, "nvrtc-12.9.tar.xz"), "-C", folder]) { RedirectStandardError = true })!;
            process.WaitForExit();
            return process.ExitCode == 0 ? folder : null;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }
}

/// <summary>Folders of this test run, removed when the process ends.</summary>
internal static class TestFolder
{
    /// <summary>A new, empty folder.</summary>
    public static string Create(string name)
    {
        string folder = Directory.CreateTempSubdirectory($"convllava-{name}-").FullName;
        AppDomain.CurrentDomain.ProcessExit += (_, _) =>
        {
            try
            {
                Directory.Delete(folder, true);
            }
            catch (IOException)
            {
                // a temporary folder that stays behind harms nobody
            }
        };
        return folder;
    }
}
