using ConvLLaVA.Cuda;

namespace ConvLLaVA.Engine;

/// <summary>What <see cref="Device.Auto"/> stands for on this machine.</summary>
/// <param name="Backend"><c>cuda</c> or <c>cpu</c>.</param>
/// <param name="Reason">Why, in one line.</param>
public sealed record DeviceChoice(string Backend, string Reason)
{
    /// <summary>The choice for what was found out about GPUs.</summary>
    public static DeviceChoice Auto(CudaAvailability cuda)
    {
        if (cuda.Reason is { } reason) return new DeviceChoice("cpu", reason);
        if (cuda.IsEmulated) return new DeviceChoice("cpu", "the device is emulated, which is for tests; --device cuda uses it.");
        return new DeviceChoice("cuda", $"{cuda.Usable[0]} can be used.");
    }
}
