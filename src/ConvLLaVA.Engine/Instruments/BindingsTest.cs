using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>What became of one part of the bindings' test.</summary>
/// <param name="Name">What was tried.</param>
/// <param name="Status"><c>ok</c>, <c>absent</c> (the library is not installed), <c>no device</c>, or <c>failed</c>.</param>
/// <param name="Detail">Version and path, or what was said.</param>
public sealed record BindingCheck(string Name, string Status, string Detail)
{
    /// <summary>True unless something that is there does not work.</summary>
    public bool Passed => Status != "failed";
}

/// <summary>Tries the bindings against whichever of NVIDIA's libraries are installed; needs no GPU. A kernel is compiled, and everything that
/// cuBLASLt is told of the products of a model is created with the real library, whose host side checks it without a device.</summary>
public static class BindingsTest
{
    private const long WorkspaceBytes = 32 << 20;

    /// <summary>Runs the test.</summary>
    /// <param name="model">Whose products: a folder or <c>synth:PRESET</c>.</param>
    /// <param name="types">In which precisions.</param>
    public static IReadOnlyList<BindingCheck> Run(string model, IReadOnlyList<DType> types)
    {
        List<BindingCheck> checks = [Driver()];
        checks.AddRange(Compiler());
        checks.AddRange(Products(model, types));
        return checks;
    }

    private static BindingCheck Driver()
    {
        ProbeTable table = CudaLibraries.Probe(CudaLibrary.Driver);
        if (!table.Found) return new("driver", "absent", table.Summary);
        CudaAvailability found = CudaAvailability.Probe(needsCompiler: false);
        string devices = string.Join(", ", found.Devices.Select(device => device.Name));
        return found.Devices.Count > 0
            ? new("driver", "ok", $"CUDA {CudaLibraries.DriverVersion}, {table.LoadedPath}: {devices}")
            : new("driver", "no device", found.Reason ?? "the driver shows no device");
    }

    private static IEnumerable<BindingCheck> Compiler()
    {
        ProbeTable table = CudaLibraries.Probe(CudaLibrary.Nvrtc);
        if (!table.Found)
        {
            yield return new("NVRTC", "absent", table.Summary);
            yield break;
        }
        yield return Try("NVRTC", () => $"{NvrtcCompiler.Version}, {table.LoadedPath}");
        yield return Try("compile a kernel", () =>
        {
            int architecture = NvrtcCompiler.SupportedArchitectures.First(known => known >= 80);
            var shape = new KernelShape(DType.BFloat16, 128, 32, 32, Models.ModelRunner.BlockSize, 16, false, architecture);
            KernelSpec spec = shape.Plain("rms_norm.cu");
            var sources = new KernelSources();
            NvrtcImage image = NvrtcCompiler.Compile(sources.Text(spec.File), spec.File, [.. sources.Includes(spec.File)], NvrtcTarget.For(architecture, NvrtcCompiler.SupportedArchitectures), ["--std=c++17", .. spec.Defines]);
            return $"rms_norm.cu to {image.Target.Name}, {image.Bytes.Length} bytes";
        });
    }

    private static IEnumerable<BindingCheck> Products(string model, IReadOnlyList<DType> types)
    {
        ProbeTable table = CudaLibraries.Probe(CudaLibrary.CublasLt);
        if (!table.Found)
        {
            yield return new("cuBLASLt", "absent", table.Summary);
            yield break;
        }
        yield return Try("cuBLASLt", () => $"{CublasLtHandle.Version}, {table.LoadedPath}");
        foreach (DType type in types)
        {
            foreach ((string name, int m, int n, int k, GemmKind kind) in Plans(model, type))
            {
                yield return Try($"{type.Name()} {name} [{m}, {k}] -> {n}", () =>
                {
                    GemmParts parts = GemmParts.Of(GemmParts.TypeOf(type), m, n, k, kind, WorkspaceBytes);
                    using (parts.Descriptor) using (parts.Weight) using (parts.Input) using (parts.Output) using (parts.Preference)
                    {
                        if ((kind & GemmKind.Bias) != 0) parts.Descriptor.Bias = 256; // an address is only looked at when the product runs
                        parts.Preference.SetAlignment(256, 256, 256, 256);
                    }
                    return "descriptor, layouts and preference created";
                });
            }
        }
        yield return Handle();
    }

    /// <summary>The one call that needs a device.</summary>
    private static BindingCheck Handle()
    {
        try
        {
            CublasLtHandle.Try();
            return new("cublasLtCreate", "ok", "a handle was created");
        }
        catch (CudaException error) when (error.CublasResult == CublasStatus.NotInitialized)
        {
            return new("cublasLtCreate", "no device", error.Message);
        }
        catch (CudaException error)
        {
            return new("cublasLtCreate", "failed", error.Message);
        }
    }

    /// <summary>The products that a model's picture and prompt give cuBLASLt, each shape once.</summary>
    private static IEnumerable<(string Name, int M, int N, int K, GemmKind Kind)> Plans(string model, DType type)
    {
        (int imageTokens, int positions, _) = PlannedCost.Sizes(model);
        IEnumerable<OperationCost> operations = PlannedCost.EncodingOperations(model, type, 1)
            .Concat(PlannedCost.StepOperations(model, type, [new SequencePiece(0, Math.Min(imageTokens + 60, positions))]))
            .Concat(PlannedCost.StepOperations(model, type, [.. Enumerable.Repeat(new SequencePiece(0, 1), KernelShape.MaxGemvRows + 8)]));
        return operations.SelectMany(Of).Distinct();

        static IEnumerable<(string, int, int, int, GemmKind)> Of(OperationCost cost) => cost.Name switch
        {
            "linear" => [("linear", cost.Rows, cost.Outputs, cost.Inputs, GemmKind.Bias)],
            "linear + GELU" => [("linear before GELU", cost.Rows, cost.Outputs, cost.Inputs, GemmKind.Plain), ("linear + tanh GELU", cost.Rows, cost.Outputs, cost.Inputs, GemmKind.Bias | GemmKind.TanhGelu)],
            "linear + residual" => [("linear + residual", cost.Rows, cost.Outputs, cost.Inputs, GemmKind.Accumulate), ("linear + bias + residual", cost.Rows, cost.Outputs, cost.Inputs, GemmKind.Accumulate | GemmKind.Bias)],
            "norm + QKV + RoPE" => [("query, key, value", cost.Rows, cost.Outputs, cost.Inputs, GemmKind.Plain)],
            "norm + gated MLP" => [("gate and up", cost.Rows, 2 * cost.Outputs, cost.Inputs, GemmKind.Plain), ("down + residual", cost.Rows, cost.Inputs, cost.Outputs, GemmKind.Accumulate)],
            "norm + logits" when cost.Rows > KernelShape.MaxGemvRows => [("logits", cost.Rows, cost.Outputs, cost.Inputs, GemmKind.FloatOutput)],
            _ => [],
        };
    }

    private static BindingCheck Try(string name, Func<string> work)
    {
        try
        {
            return new(name, "ok", work());
        }
        catch (Exception error) when (error is CudaException or ConvLlavaException or EntryPointNotFoundException or InvalidOperationException)
        {
            return new(name, "failed", error.Message);
        }
    }
}
