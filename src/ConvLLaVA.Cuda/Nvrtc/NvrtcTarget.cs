namespace ConvLLaVA.Cuda;

/// <summary>What a source is compiled to.</summary>
/// <param name="Name">The architecture as NVRTC takes it: <c>sm_90a</c> gives machine code, <c>compute_90</c> gives PTX.</param>
/// <param name="Architecture">Its number, e.g. 90.</param>
/// <param name="IsMachineCode">True for machine code (CUBIN), which any driver of the same CUDA major loads; PTX is tied to the driver's
/// own version and is the way out for a device newer than NVRTC.</param>
public readonly record struct NvrtcTarget(string Name, int Architecture, bool IsMachineCode)
{
    /// <summary>The target for a device of architecture <paramref name="device"/> (e.g. 89) with an NVRTC that knows
    /// <paramref name="known"/>: machine code where it knows the device, or a device of the same major below it, whose code also runs;
    /// else PTX for the newest architecture below.</summary>
    /// <param name="device">The device's compute capability, as major * 10 + minor.</param>
    /// <param name="known">What NVRTC answers to <c>nvrtcGetSupportedArchs</c>.</param>
    /// <param name="specific">Ask for the features of this architecture alone (<c>sm_90a</c>), which only it runs.</param>
    /// <exception cref="CudaException">NVRTC knows nothing that the device could run.</exception>
    public static NvrtcTarget For(int device, IReadOnlyCollection<int> known, bool specific = false)
    {
        if (known.Contains(device)) return new NvrtcTarget($"sm_{device}{(specific && device >= 90 ? "a" : "")}", device, true);
        int sameMajor = known.Where(arch => arch < device && arch / 10 == device / 10).DefaultIfEmpty().Max();
        if (sameMajor != 0) return new NvrtcTarget($"sm_{sameMajor}", sameMajor, true);
        int below = known.Where(arch => arch < device).DefaultIfEmpty().Max();
        if (below != 0) return new NvrtcTarget($"compute_{below}", below, false);
        throw new CudaException("nvrtcGetSupportedArchs", "NVRTC_ERROR_INVALID_OPTION", (int)NvrtcResult.InvalidOption,
            $"this NVRTC compiles for {(known.Count == 0 ? "nothing" : $"sm_{known.Min()} and newer")}, the device is sm_{device}");
    }
}
