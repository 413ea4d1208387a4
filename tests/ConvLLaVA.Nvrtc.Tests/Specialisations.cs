using System.Collections.Concurrent;
using System.Globalization;
using System.Text.RegularExpressions;
using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Nvrtc.Tests;

/// <summary>What ptxas says of one kernel.</summary>
/// <param name="Registers">Registers of a thread.</param>
/// <param name="SharedBytes">Static shared memory of a block.</param>
/// <param name="StackBytes">Local memory of a thread.</param>
/// <param name="SpillBytes">Bytes of spilled registers that are stored and loaded.</param>
internal sealed record KernelResources(int Registers, int SharedBytes, int StackBytes, int SpillBytes);

/// <summary>A specialisation compiled for an architecture.</summary>
/// <param name="Spec">Which.</param>
/// <param name="Architecture">E.g. <c>sm_80</c>.</param>
/// <param name="Code">The CUBIN.</param>
/// <param name="Kernels">Its kernels, by name.</param>
/// <param name="Warnings">What the compiler complained of.</param>
internal sealed record CompiledSpec(KernelSpec Spec, string Architecture, byte[] Code, IReadOnlyDictionary<string, KernelResources> Kernels, IReadOnlyList<string> Warnings);

/// <summary>The kernel specialisations of the presets and the demo model, compiled.</summary>
internal static partial class Specialisations
{
    private static readonly KernelSources Sources = new(Path.Combine(Repository.Root, "kernels"));
    private static readonly ConcurrentDictionary<(KernelSpec, string), Lazy<CompiledSpec>> Done = new();

    /// <summary>Architectures, oldest first.</summary>
    public static readonly string[] Architectures = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a"];

    /// <summary>All specialisations that 7b-768, 7b-1024, 7b-1536 (one language model, kernels that take any picture: the same list) and the
    /// demo model use on an architecture, with and without the deterministic mode. sm_75 has no bfloat16; fp32, the parity mode, has the
    /// figures of two architectures.</summary>
    public static IReadOnlyList<KernelSpec> For(string architecture)
    {
        DType[] types = architecture switch
        {
            "sm_75" => [DType.Float16],
            "sm_80" or "sm_90a" => [DType.Float16, DType.BFloat16, DType.Float32],
            _ => [DType.Float16, DType.BFloat16],
        };
        var specs = from type in types
                    from model in new[] { (HeadDim: 128, Heads: 32), (HeadDim: 48, Heads: 4) }
                    from deterministic in new[] { false, true }
                    from spec in new KernelShape(type, model.HeadDim, model.Heads, model.Heads, 16, 16, deterministic, Number(architecture)).All()
                    select spec;
        return [.. specs.Distinct()];
    }

    /// <summary>Kernels of quantised weights, in every form: the largest batch, which needs most registers, and on two architectures the smallest
    /// too and the other products.</summary>
    public static IReadOnlyList<KernelSpec> Quantised(string architecture)
    {
        var shape = new KernelShape(architecture == "sm_75" ? DType.Float16 : DType.BFloat16, 128, 32, 32, 16, 16, false, Number(architecture));
        return [.. Enumerable.Range(1, 6).SelectMany(weights => (KernelSpec[])
        [
            shape.Dequantise(weights), shape.Gemv(8, true, GemvEpilogue.SwiGlu, weights),
            .. architecture is "sm_80" or "sm_90a"
                ? (KernelSpec[])[shape.GemvQkv(8, weights), shape.Gemv(8, false, GemvEpilogue.Add, weights), shape.Gemv(1, true, GemvEpilogue.SwiGlu, weights), shape.Gemv(1, false, GemvEpilogue.Add, weights)]
                : [],
        ])];
    }

    /// <summary>Compiles <paramref name="specs"/>, on all cores; what a test of this process has compiled is not compiled again.</summary>
    public static IReadOnlyList<CompiledSpec> Compile(IReadOnlyList<KernelSpec> specs, string architecture)
    {
        var compiled = new CompiledSpec[specs.Count];
        Parallel.For(0, specs.Count, new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount }, i => compiled[i] = Done.GetOrAdd((specs[i], architecture), key => new Lazy<CompiledSpec>(() => Compile(key.Item1, key.Item2))).Value);
        return compiled;
    }

    private static CompiledSpec Compile(KernelSpec spec, string architecture)
    {
        var target = new NvrtcTarget(architecture, Number(architecture), true);
        NvrtcImage image = NvrtcCompiler.Compile(Sources.Text(spec.File), spec.File, [.. Sources.Includes(spec.File)], target, ["--std=c++17", "--ptxas-options=-v", .. spec.Defines]);
        var kernels = new SortedDictionary<string, KernelResources>(StringComparer.Ordinal);
        foreach (Match match in Entry().Matches(image.Log))
        {
            int Number(string name) => match.Groups[name].Success ? int.Parse(match.Groups[name].Value, CultureInfo.InvariantCulture) : 0;
            kernels.Add(match.Groups["name"].Value, new KernelResources(Number("registers"), Number("shared"), Number("stack"), Number("stores") + Number("loads")));
        }
        string[] warnings = [.. image.Log.Split('\n').Where(line => line.Contains("warning", StringComparison.OrdinalIgnoreCase) || line.Contains("error", StringComparison.OrdinalIgnoreCase))];
        return new CompiledSpec(spec, architecture, image.Bytes, kernels, warnings);
    }

    private static int Number(string architecture) => int.Parse(architecture.AsSpan(3).TrimEnd('a'), CultureInfo.InvariantCulture);

    [GeneratedRegex(@"Compiling entry function '(?<name>\w+)'.*?(?<stack>\d+) bytes stack frame, (?<stores>\d+) bytes spill stores, (?<loads>\d+) bytes spill loads.*?Used (?<registers>\d+) registers[^\n]*?(?:(?<shared>\d+) bytes smem|(?=\n|$))", RegexOptions.Singleline)]
    private static partial Regex Entry();
}
