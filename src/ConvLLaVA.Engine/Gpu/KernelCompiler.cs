using System.Collections.Concurrent;
using System.Diagnostics;
using System.Security.Cryptography;
using ConvLLaVA.Cuda;
using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Gives the machine code of kernel specialisations: from the cache where it has them, else compiled, several at a time.
/// Needs no driver; a machine whose cache has everything needs no compiler either.</summary>
internal sealed partial class KernelCompiler
{
    private static readonly string[] CommonOptions = ["--std=c++17"];
    private readonly ILogger _logger;

    /// <summary>A compiler for devices of <paramref name="architecture"/> (e.g. 90).</summary>
    public KernelCompiler(KernelSources sources, KernelCache cache, int architecture, ILogger logger)
    {
        Sources = sources;
        Cache = cache;
        Architecture = architecture;
        _logger = logger;
    }

    /// <summary>Texts of the kernels.</summary>
    public KernelSources Sources { get; }

    /// <summary>Where code is kept.</summary>
    public KernelCache Cache { get; }

    /// <summary>Architecture compiled for.</summary>
    public int Architecture { get; }

    /// <summary>Specialisations that were compiled, not found.</summary>
    public int Compiled { get; private set; }

    /// <summary>Specialisations that came out of the cache.</summary>
    public int Found { get; private set; }

    /// <summary>The code of every specialisation, in order.</summary>
    /// <exception cref="ConvLlavaException">One does not compile; the message names file and line and holds the compiler's log.</exception>
    public IReadOnlyList<byte[]> Build(IReadOnlyList<KernelSpec> specs, CancellationToken cancellation = default)
    {
        var code = new byte[specs.Count][];
        var stems = new string[specs.Count];
        Version? nvrtc = CudaAvailability.CompilerProblem() is null ? NvrtcCompiler.Version : null;
        string[] targets = nvrtc is null ? [.. Targets().Select(KeyOf)] : [KeyOf(Target().Name)];
        var missing = new List<int>();
        for (int i = 0; i < specs.Count; i++)
        {
            stems[i] = KernelCache.Stem(Sources, specs[i], [.. CommonOptions, .. specs[i].Defines]);
            byte[]? kept = targets.Select(target => nvrtc is null
                ? Cache.ReadAny(stems[i], target)
                : Cache.Read(KernelCache.EntryName(stems[i], target, nvrtc))).FirstOrDefault(found => found is not null);
            if (kept is null) missing.Add(i);
            else code[i] = kept;
        }
        Found += specs.Count - missing.Count;
        if (missing.Count > 0) Compile(specs, stems, missing, code, cancellation);
        return code;
    }

    /// <summary>The code of one specialisation, compiled anew whatever the cache has: what it had could not be loaded.</summary>
    public byte[] Rebuild(KernelSpec spec)
    {
        var code = new byte[1][];
        Compile([spec], [KernelCache.Stem(Sources, spec, [.. CommonOptions, .. spec.Defines])], [0], code, CancellationToken.None);
        return code[0];
    }

    /// <summary>Compiles one specialisation whatever the cache has, keeps its code, and has ptxas report what it takes.</summary>
    /// <exception cref="ConvLlavaException">It does not compile.</exception>
    public NvrtcImage CompileReported(KernelSpec spec)
    {
        try
        {
            NvrtcTarget target = Target();
            NvrtcImage image = NvrtcCompiler.Compile(Sources.Text(spec.File), Sources.NameOf(spec.File), [.. Sources.Includes(spec.File)], target, [.. CommonOptions, .. spec.Defines, "--ptxas-options=-v"]);
            Cache.Write(KernelCache.EntryName(KernelCache.Stem(Sources, spec, [.. CommonOptions, .. spec.Defines]), KeyOf(target.Name), NvrtcCompiler.Version), image.Bytes);
            return image;
        }
        catch (CudaException error)
        {
            string message = $"The kernel {spec} cannot be compiled for sm_{Architecture}: {error.Message}";
            throw Sources.Folder is null ? new ConvLlavaException(message, error) : new InvalidInputException(message, error);
        }
    }

    private void Compile(IReadOnlyList<KernelSpec> specs, string[] stems, List<int> missing, byte[][] code, CancellationToken cancellation)
    {
        if (CudaAvailability.CompilerProblem() is { } missingCompiler)
            throw new InvalidInputException($"{specs[missing[0]]} for sm_{Architecture} is not in the kernel cache ({Cache.Folder}) and cannot be compiled: {missingCompiler}");
        Version nvrtc = NvrtcCompiler.Version;
        NvrtcTarget target = Target();
        long started = Stopwatch.GetTimestamp();
        LogCompiling(_logger, missing.Count, target.Name, nvrtc, Cache.Folder);
        var failures = new ConcurrentBag<(int Index, Exception Error)>();
        Parallel.ForEach(missing, new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount, CancellationToken = cancellation }, (index, state) =>
        {
            KernelSpec spec = specs[index];
            try
            {
                NvrtcImage image = NvrtcCompiler.Compile(Sources.Text(spec.File), Sources.NameOf(spec.File), [.. Sources.Includes(spec.File)], target, [.. CommonOptions, .. spec.Defines]);
                code[index] = image.Bytes;
                if (image.Log.Length > 0) LogCompilerSaid(_logger, spec, image.Log);
                Cache.Write(KernelCache.EntryName(stems[index], KeyOf(target.Name), nvrtc), image.Bytes);
            }
            catch (Exception error) when (error is CudaException or ConvLlavaException)
            {
                failures.Add((index, error));
                state.Stop();
            }
        });
        if (!failures.IsEmpty)
        {
            (int index, Exception error) = failures.MinBy(failure => failure.Index);
            if (error is ConvLlavaException) throw error;
            string message = $"The kernel {specs[index]} cannot be compiled for {target.Name}: {error.Message}";
            throw Sources.Folder is null ? new ConvLlavaException(message, error) : new InvalidInputException(message, error);
        }
        Compiled += missing.Count;
        LogCompiled(_logger, missing.Count, Stopwatch.GetElapsedTime(started).TotalSeconds);
        if (Cache.WriteProblem is { } problem) LogNotKept(_logger, Cache.Folder, problem);
    }

    /// <summary>What this compiler compiles to for the device; Hopper and newer get what only they have.</summary>
    private NvrtcTarget Target() => NvrtcTarget.For(Architecture, NvrtcCompiler.SupportedArchitectures, specific: Architecture >= 90);

    /// <summary>The target's part of a cache entry's name. What the emulated device compiles is of no use to a GPU, and depends on its headers.</summary>
    private static string KeyOf(string target)
    {
        if (!CudaLibraries.IsEmulated || Path.GetDirectoryName(CudaLibraries.Probe(CudaLibrary.Driver).LoadedPath) is not { } folder) return target;
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        string headers = Path.Combine(folder, "include");
        if (Directory.Exists(headers))
        {
            foreach (string header in Directory.GetFiles(headers).Order(StringComparer.Ordinal)) hash.AppendData(File.ReadAllBytes(header));
        }
        return $"{target}-emulated-{Convert.ToHexStringLower(hash.GetHashAndReset())[..12]}";
    }

    /// <summary>Without a compiler: whatever it could have been compiled to, the closest first.</summary>
    private IEnumerable<string> Targets()
    {
        if (Architecture >= 90) yield return $"sm_{Architecture}a";
        for (int arch = Architecture; arch >= Architecture / 10 * 10; arch--) yield return $"sm_{arch}";
        for (int arch = Architecture; arch >= CudaAvailability.MinimumArchitecture; arch--) yield return $"compute_{arch}";
    }

    [LoggerMessage(EventId = 300, Level = LogLevel.Information, Message = "Compiling {Count} kernels for {Target} with NVRTC {Version}; they are kept in {Folder}.")]
    private static partial void LogCompiling(ILogger logger, int count, string target, Version version, string folder);

    [LoggerMessage(EventId = 301, Level = LogLevel.Information, Message = "{Count} kernels compiled in {Seconds:F1} s.")]
    private static partial void LogCompiled(ILogger logger, int count, double seconds);

    [LoggerMessage(EventId = 302, Level = LogLevel.Warning, Message = "Compiled kernels cannot be kept in {Folder}, so the next start compiles them again: {Problem}")]
    private static partial void LogNotKept(ILogger logger, string folder, string problem);

    [LoggerMessage(EventId = 303, Level = LogLevel.Debug, Message = "{Spec}: {Log}")]
    private static partial void LogCompilerSaid(ILogger logger, KernelSpec spec, string log);
}
