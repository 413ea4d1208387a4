using System.Globalization;
using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging.Abstractions;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>A kernel specialisation that a model uses.</summary>
/// <param name="File">Its file.</param>
/// <param name="Constants">Its constants.</param>
/// <param name="Dtype">Storage type.</param>
/// <param name="Architecture">Compiled for, e.g. 90.</param>
public sealed record KernelVariant(string File, string Constants, string Dtype, int Architecture);

/// <summary>What the compiler made of an entry point, and what a model has it do.</summary>
/// <param name="Kernel">The entry point.</param>
/// <param name="Constants">The specialisation.</param>
/// <param name="Dtype">Storage type.</param>
/// <param name="Target">What it was compiled to, e.g. <c>sm_90a</c>.</param>
/// <param name="Registers">Registers of a thread.</param>
/// <param name="SharedBytes">Static shared memory of a block.</param>
/// <param name="DynamicSharedBytes">Dynamic shared memory that the model's launches ask for.</param>
/// <param name="StackBytes">Local memory of a thread.</param>
/// <param name="SpillBytes">Bytes of registers written out and read back.</param>
/// <param name="Threads">Most threads of a block; 0 where the code does not say.</param>
/// <param name="BlocksPerMultiprocessor">Blocks that fit a multiprocessor at a time.</param>
/// <param name="OccupancyPercent">Share of a multiprocessor's warps that they fill.</param>
/// <param name="Work">What <paramref name="Launches"/>, <paramref name="Bytes"/> and <paramref name="Flops"/> are for; null when no forward pass uses it.</param>
/// <param name="Launches">Launches for that.</param>
/// <param name="Bytes">Bytes that they must move at least.</param>
/// <param name="Flops">Floating-point operations.</param>
/// <param name="BoundMs">The time that datasheet bandwidth and rate allow: a bound, never a measurement.</param>
public sealed record KernelRow(string Kernel, string Constants, string Dtype, string Target, int Registers, int SharedBytes, int DynamicSharedBytes, int StackBytes, int SpillBytes,
    int Threads, int BlocksPerMultiprocessor, int OccupancyPercent, string? Work, int Launches, long Bytes, long Flops, double? BoundMs);

/// <summary>Everything that compiling a model's kernels gave.</summary>
/// <param name="Schema">Version of this format.</param>
/// <param name="Model">The model.</param>
/// <param name="Quantized">Format of its quantised weights; null for none.</param>
/// <param name="Compiler">NVRTC's version.</param>
/// <param name="Gpu">The GPU whose datasheet the bounds are of; null for none.</param>
/// <param name="Context">Tokens of context that decoding is looked at with.</param>
/// <param name="Rows">One an entry point, specialisation and architecture.</param>
public sealed record KernelReport(int Schema, string Model, string? Quantized, string Compiler, string? Gpu, int Context, IReadOnlyList<KernelRow> Rows);

/// <summary>Compiles the kernels of a model without a driver, into a folder that serves as a read-only kernel cache.</summary>
public sealed class KernelBuild
{
    private const int MaxDecodeRows = 16;
    private readonly string _model;
    private readonly HeadShape _heads;
    private readonly IReadOnlyList<DType> _types;
    private readonly IReadOnlyList<int> _architectures;
    private readonly string? _kernelFolder;
    private readonly QuantOptions? _quantize;
    private readonly QuantFormat? _format;
    private readonly IReadOnlyCollection<int> _forms;

    /// <summary>Decides what to compile.</summary>
    /// <param name="model">A folder or <c>synth:PRESET</c>.</param>
    /// <param name="types">Storage types; empty for the one the model is stored in.</param>
    /// <param name="architectures">Architectures, e.g. 80 and 90.</param>
    /// <param name="kernelFolder">Kernel sources that stand in for the built-in ones, or null.</param>
    /// <param name="quantize">What will be quantised while loading, or null. A folder of quantised weights brings its own kernels.</param>
    /// <exception cref="InvalidInputException">There is no such model, or it cannot be quantised that way.</exception>
    public KernelBuild(string model, IReadOnlyList<DType> types, IReadOnlyList<int> architectures, string? kernelFolder = null, QuantOptions? quantize = null)
    {
        _model = model;
        _architectures = architectures;
        _kernelFolder = kernelFolder;
        _quantize = quantize;
        using Checkpoint checkpoint = Checkpoint.Open(model);
        if (quantize is not null) checkpoint.RequireQuantizable(quantize);
        LlavaConfig config = checkpoint.Config;
        _format = (quantize ?? config.Quantization)?.Format;
        _heads = new HeadShape(config.HeadDim, config.NumAttentionHeads, config.NumKeyValueHeads);
        _types = types.Count > 0 ? types : [Backends.GpuType(new LoadOptions(), checkpoint)];
        foreach (int architecture in architectures)
        {
            if (architecture < CudaAvailability.MinimumArchitecture) throw new InvalidInputException($"The kernels are written for sm_{CudaAvailability.MinimumArchitecture} and newer, not for sm_{architecture}.");
            if (architecture < 80 && _types.Contains(DType.BFloat16)) throw new InvalidInputException($"sm_{architecture} has no bfloat16 arithmetic (sm_80 and newer have): build for --dtype float16.");
        }
        _forms = PlannedCost.Forms(checkpoint, _types[0], quantize);
    }

    /// <summary>Everything that would be compiled.</summary>
    public IReadOnlyList<KernelVariant> Variants =>
        [.. Specs().Select(item => new KernelVariant(item.Spec.File, item.Spec.Constants, item.Shape.Type.Name(), item.Shape.Architecture))];

    /// <summary>Compiles, several at a time.</summary>
    /// <param name="folder">Where the machine code goes.</param>
    /// <param name="gpu">The GPU for bounds, or null.</param>
    /// <param name="progress">Told the share that is done.</param>
    /// <param name="cancellation">Ends it early.</param>
    /// <exception cref="InvalidInputException">NVRTC is missing or does not know an architecture, or the folder cannot be written.</exception>
    /// <exception cref="ConvLlavaException">A kernel does not compile.</exception>
    public KernelReport Run(string folder, DatasheetGpu? gpu, IProgress<double>? progress = null, CancellationToken cancellation = default)
    {
        ProbeTable nvrtc = CudaLibraries.Probe(CudaLibrary.Nvrtc);
        if (!nvrtc.Found) throw new InvalidInputException(nvrtc.Summary);
        foreach (int architecture in _architectures)
        {
            if (!NvrtcCompiler.SupportedArchitectures.Contains(architecture))
                throw new InvalidInputException($"NVRTC {NvrtcCompiler.Version} does not compile for sm_{architecture}, only for {string.Join(", ", NvrtcCompiler.SupportedArchitectures.Select(known => $"sm_{known}"))}.");
        }
        var sources = new KernelSources(_kernelFolder);
        var cache = new KernelCache(folder);
        Dictionary<int, KernelCompiler> compilers = _architectures.ToDictionary(architecture => architecture, architecture => new KernelCompiler(sources, cache, architecture, NullLogger.Instance));
        Dictionary<DType, KernelWorkload> workloads = _types.ToDictionary(type => type, type => new KernelWorkload(_model, type, _quantize));
        (KernelShape Shape, KernelSpec Spec)[] all = [.. Specs()];
        var rows = new List<KernelRow>[all.Length];
        int done = 0;
        try
        {
            Parallel.For(0, all.Length, new ParallelOptions { CancellationToken = cancellation, MaxDegreeOfParallelism = Environment.ProcessorCount }, i =>
            {
                (KernelShape shape, KernelSpec spec) = all[i];
                NvrtcImage image = compilers[shape.Architecture].CompileReported(spec);
                lock (workloads) rows[i] = [.. Rows(shape, spec, image, workloads[shape.Type], gpu)];
                progress?.Report((double)Interlocked.Increment(ref done) / all.Length);
            });
        }
        catch (AggregateException several)
        {
            throw several.InnerExceptions[0] is ConvLlavaException known ? known : new ConvLlavaException(several.InnerExceptions[0].Message, several.InnerExceptions[0]);
        }
        if (cache.WriteProblem is { } problem) throw new InvalidInputException($"{folder} cannot be written: {problem}");
        return new KernelReport(1, _model, _format?.Name(), string.Create(CultureInfo.InvariantCulture, $"NVRTC {NvrtcCompiler.Version}"), gpu?.Title, workloads[_types[0]].Context, [.. rows.SelectMany(row => row)]);
    }

    private IEnumerable<(KernelShape Shape, KernelSpec Spec)> Specs() => _architectures.SelectMany(architecture => _types.SelectMany(type =>
    {
        var shape = new KernelShape(type, _heads.HeadDim, _heads.Heads, _heads.KeyValueHeads, ModelRunner.BlockSize, MaxDecodeRows, false, architecture);
        return shape.All().Concat(_forms.SelectMany(shape.Quantised)).Select(spec => (shape, spec));
    }));

    private static IEnumerable<KernelRow> Rows(KernelShape shape, KernelSpec spec, NvrtcImage image, KernelWorkload workload, DatasheetGpu? gpu)
    {
        IReadOnlyDictionary<string, int> bounds = CubinLaunchBounds.Read(image.Bytes);
        foreach (PtxasReport used in PtxasReport.Parse(image.Log))
        {
            KernelWork? work = workload.Of(spec, used.Entry);
            int threads = bounds.GetValueOrDefault(used.Entry), dynamic = DynamicShared(shape, spec, used.Entry, workload);
            int blocks = threads == 0 ? 0 : Multiprocessor.BlocksOf(shape.Architecture, threads, used.Registers, used.StaticSharedBytes + dynamic);
            int occupancy = blocks * ((threads + 31) / 32) * 100 / Multiprocessor.Of(shape.Architecture).Warps;
            bool tensorCores = spec.File == "attention_prefill.cu";
            yield return new KernelRow(used.Entry, spec.Constants, shape.Type.Name(), image.Target.Name, used.Registers, used.StaticSharedBytes, dynamic, used.StackBytes,
                used.SpillStoreBytes + used.SpillLoadBytes, threads, blocks, occupancy, work?.What, work?.Launches ?? 0, work?.Bytes ?? 0, work?.Flops ?? 0,
                work is null || gpu is null ? null : gpu.LeastMilliseconds(work.Bytes, work.Flops, tensorCores));
        }
    }

    /// <summary>Dynamic shared memory of the launches that a model makes.</summary>
    private static int DynamicShared(KernelShape shape, KernelSpec spec, string entry, KernelWorkload workload) => (spec.File, entry) switch
    {
        ("attention_prefill.cu" or "attention_prefill_any.cu", _) => GpuKernels.PrefillBlock(shape).SharedBytes,
        ("attention_decode.cu", "attention_decode") => GpuKernels.DecodeBlock(shape).SharedBytes,
        ("gemv.cu", _) when spec.Constants.Contains("NORM=1", StringComparison.Ordinal) => GpuKernels.NormBytes(shape, workload.Rows(spec), workload.HiddenSize),
        ("gemv_qkv.cu", _) => GpuKernels.NormBytes(shape, workload.Rows(spec), workload.HiddenSize),
        _ => 0,
    };
}
