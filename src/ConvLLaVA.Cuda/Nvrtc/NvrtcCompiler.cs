namespace ConvLLaVA.Cuda;

/// <summary>What a compilation gave.</summary>
/// <param name="Bytes">CUBIN, or PTX as UTF-8; both load as a <see cref="CudaModule"/>.</param>
/// <param name="Target">What it was compiled to.</param>
/// <param name="Log">What the compiler said: warnings, and ptxas's report when asked for with <c>--ptxas-options=-v</c>.</param>
public sealed record NvrtcImage(byte[] Bytes, NvrtcTarget Target, string Log);

/// <summary>The NVRTC that was found. Thread-safe; needs no driver.</summary>
public static unsafe class NvrtcCompiler
{
    /// <summary>Version of NVRTC, e.g. 13.5.</summary>
    /// <exception cref="CudaLibraryNotFoundException">NVRTC is not installed.</exception>
    public static Version Version
    {
        get
        {
            int major, minor;
            Check.Ok(NvrtcApi.nvrtcVersion(&major, &minor));
            return new Version(major, minor);
        }
    }

    /// <summary>Architectures it compiles for, e.g. 75, 80, 90, ascending.</summary>
    /// <exception cref="CudaLibraryNotFoundException">NVRTC is not installed.</exception>
    public static IReadOnlyList<int> SupportedArchitectures
    {
        get
        {
            int count;
            Check.Ok(NvrtcApi.nvrtcGetNumSupportedArchs(&count));
            int[] architectures = new int[count];
            fixed (int* target = architectures) Check.Ok(NvrtcApi.nvrtcGetSupportedArchs(target));
            Array.Sort(architectures);
            return architectures;
        }
    }

    /// <summary>The target for <paramref name="device"/>; see <see cref="NvrtcTarget.For"/>.</summary>
    public static NvrtcTarget TargetFor(CudaDevice device, bool specific = false) => NvrtcTarget.For(device.Architecture, SupportedArchitectures, specific);

    /// <summary>Compiles <paramref name="source"/> to <paramref name="target"/>.</summary>
    /// <param name="source">Text of the file.</param>
    /// <param name="name">Its name, as messages will show it.</param>
    /// <param name="headers">All files that it includes.</param>
    /// <param name="target">What to compile to.</param>
    /// <param name="options">Further options, such as <c>--std=c++17</c> and <c>-DNAME=VALUE</c>.</param>
    /// <exception cref="NvrtcCompilationException">The source has errors.</exception>
    /// <exception cref="CudaLibraryNotFoundException">NVRTC is not installed.</exception>
    public static NvrtcImage Compile(string source, string name, IReadOnlyCollection<NvrtcHeader>? headers, NvrtcTarget target, IReadOnlyCollection<string>? options = null)
    {
        using var program = new NvrtcProgram(source, name, headers);
        program.Compile([$"--gpu-architecture={target.Name}", .. options ?? []]);
        return new NvrtcImage(target.IsMachineCode ? program.GetCubin() : program.GetPtx(), target, program.Log);
    }

    /// <summary>Compiles an empty kernel, which shows whether NVRTC is complete; never throws.</summary>
    public static NvrtcTrial Trial()
    {
        try
        {
            int architecture = SupportedArchitectures.First(arch => arch >= CudaAvailability.MinimumArchitecture);
            var target = new NvrtcTarget($"sm_{architecture}", architecture, true);
            NvrtcImage image = Compile("extern \"C\" __global__ void trial() {}\n", "trial.cu", null, target);
            return new NvrtcTrial(target.Name, image.Bytes.Length, null);
        }
        catch (NvrtcCompilationException error)
        {
            return new NvrtcTrial("", 0, error.Log.Length > 0 ? error.Log.ReplaceLineEndings(" ") : error.Message);
        }
        catch (Exception error) when (error is CudaException or EntryPointNotFoundException or InvalidOperationException)
        {
            return new NvrtcTrial("", 0, error.Message);
        }
    }
}

/// <summary>How a trial of the compiler went.</summary>
/// <param name="Target">What the kernel was compiled to.</param>
/// <param name="Bytes">Size of the machine code.</param>
/// <param name="Problem">What NVRTC said when it failed; null when it did not.</param>
public sealed record NvrtcTrial(string Target, int Bytes, string? Problem);
