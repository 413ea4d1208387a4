using ConvLLaVA.Cuda;

namespace ConvLLaVA.Engine;

/// <summary>What <see cref="Device.Auto"/> stands for on this machine.</summary>
/// <param name="Backend"><c>cuda</c> or <c>cpu</c>.</param>
/// <param name="Reason">Why, in one line.</param>
public sealed record DeviceChoice(string Backend, string Reason)
{
    // Becomes true with the CUDA backend.
    private static bool CudaBackendExists => false;

    /// <summary>The choice for what was found out about GPUs.</summary>
    public static DeviceChoice Auto(CudaAvailability cuda) => Auto(cuda, CudaBackendExists);

    internal static DeviceChoice Auto(CudaAvailability cuda, bool cudaBackendExists)
    {
        if (cuda.Reason is { } reason) return new DeviceChoice("cpu", reason);
        if (cuda.IsEmulated) return new DeviceChoice("cpu", "the device is emulated, which is for tests; --device cuda uses it.");
        string device = cuda.Usable[0].ToString();
        return cudaBackendExists
            ? new DeviceChoice("cuda", $"{device} can be used.")
            : new DeviceChoice("cpu", $"{device} could be used, but this build has no CUDA backend.");
    }
}
