using System.Collections.Concurrent;
using ConvLLaVA.Cuda;

namespace ConvLLaVA.Kernels.Tests;

/// <summary>A kernel file of the repository compiled with given constants. The same constants give the same object.</summary>
internal sealed class Kernel
{
    private static readonly ConcurrentDictionary<string, Lazy<Kernel>> Compiled = new();
    private static readonly NvrtcTarget Target = new("sm_90", 90, true);
    private static readonly Lazy<NvrtcHeader[]> Headers = new(() => [.. Directory.EnumerateFiles(Folder, "*.cuh").Order(StringComparer.Ordinal).Select(path => new NvrtcHeader(Path.GetFileName(path), File.ReadAllText(path)))]);

    private Kernel(string name, byte[] image)
    {
        Name = name;
        Image = image;
    }

    /// <summary><c>kernels</c>.</summary>
    public static string Folder => Path.Combine(Repository.Root, "kernels");

    /// <summary>File and constants.</summary>
    public string Name { get; }

    /// <summary>What the compiler made of it.</summary>
    public byte[] Image { get; }

    /// <summary>Compiles <c>kernels/FILE</c>.</summary>
    /// <param name="file">File name, e.g. <c>layer_norm.cu</c>.</param>
    /// <param name="storage">Storage type.</param>
    /// <param name="constants">Further constants, each <c>NAME=VALUE</c>.</param>
    public static Kernel Compile(string file, Storage storage, params string[] constants) => CompilePath(Path.Combine(Folder, file), storage, constants);

    /// <summary>Compiles a file anywhere.</summary>
    public static Kernel CompilePath(string path, Storage storage, params string[] constants)
    {
        EmulatedDevice.SkipWithout();
        string file = Path.GetFileName(path);
        string[] options = ["--std=c++17", storage.Define(), .. constants.Select(constant => "-D" + constant)];
        return Compiled.GetOrAdd($"{file} {string.Join(' ', options)}", name => new Lazy<Kernel>(() =>
        {
            NvrtcImage image = NvrtcCompiler.Compile(File.ReadAllText(path), file, Headers.Value, Target, options);
            return new Kernel(name, image.Bytes);
        })).Value;
    }

    /// <summary>Compiles several at once, so that the machine's cores all work; tests that use many call it first.</summary>
    public static void CompileAhead(params Func<Kernel>[] kernels)
    {
        EmulatedDevice.SkipWithout();
        Parallel.ForEach(kernels, new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount }, kernel => kernel());
    }
}
