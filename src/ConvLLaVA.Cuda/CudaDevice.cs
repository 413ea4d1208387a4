using System.Runtime.CompilerServices;

namespace ConvLLaVA.Cuda;

/// <summary>A GPU as the driver describes it. Asking needs no context.</summary>
public sealed unsafe class CudaDevice
{
    private CudaDevice(int ordinal)
    {
        Ordinal = ordinal;
        int device;
        Check.Ok(CuDriver.cuDeviceGet(&device, ordinal));
        Handle = device;
        byte* name = stackalloc byte[256];
        Check.Ok(CuDriver.cuDeviceGetName(name, 256, device));
        Name = Check.Text(name) ?? "";
        nuint bytes;
        Check.Ok(CuDriver.cuDeviceTotalMem_v2(&bytes, device));
        TotalMemory = (long)bytes;
        ComputeCapability = new Version(Attribute(CuDeviceAttribute.ComputeCapabilityMajor), Attribute(CuDeviceAttribute.ComputeCapabilityMinor));
        MultiprocessorCount = Attribute(CuDeviceAttribute.MultiprocessorCount);
    }

    /// <summary>Number of the device, as <c>CUDA_VISIBLE_DEVICES</c> leaves them.</summary>
    public int Ordinal { get; }

    /// <summary>The driver's handle (<c>CUdevice</c>).</summary>
    public int Handle { get; }

    /// <summary>Name for people.</summary>
    public string Name { get; }

    /// <summary>Bytes of device memory.</summary>
    public long TotalMemory { get; }

    /// <summary>Compute capability, e.g. 9.0.</summary>
    public Version ComputeCapability { get; }

    /// <summary>Compute capability in one number, e.g. 90.</summary>
    public int Architecture => ComputeCapability.Major * 10 + ComputeCapability.Minor;

    /// <summary>Number of multiprocessors.</summary>
    public int MultiprocessorCount { get; }

    /// <summary>Bytes of shared memory that a block may use after opting in.</summary>
    public int MaxSharedMemoryPerBlock => Attribute(CuDeviceAttribute.MaxSharedMemoryPerBlockOptin);

    /// <summary>The device's permanent identity, e.g. <c>GPU-d0b1…</c>.</summary>
    public string Uuid
    {
        get
        {
            CuUuid uuid;
            Check.Ok(CuDriver.cuDeviceGetUuid_v2(&uuid, Handle));
            return $"GPU-{new Guid(new ReadOnlySpan<byte>(&uuid, sizeof(CuUuid)), bigEndian: true)}";
        }
    }

    /// <summary>Initialises the driver; may be called again.</summary>
    /// <exception cref="CudaLibraryNotFoundException">There is no driver.</exception>
    /// <exception cref="CudaException">The driver cannot be used.</exception>
    public static void Initialize() => Check.Ok(CuDriver.cuInit(0));

    /// <summary>Newest CUDA version that the driver supports, e.g. 13.0.</summary>
    public static Version DriverVersion
    {
        get
        {
            int version;
            Check.Ok(CuDriver.cuDriverGetVersion(&version));
            return new Version(version / 1000, version % 1000 / 10);
        }
    }

    /// <summary>Number of devices.</summary>
    public static int Count
    {
        get
        {
            Initialize();
            int count;
            Check.Ok(CuDriver.cuDeviceGetCount(&count));
            return count;
        }
    }

    /// <summary>Device <paramref name="ordinal"/>.</summary>
    /// <exception cref="CudaException">There is no such device.</exception>
    public static CudaDevice Get(int ordinal)
    {
        Initialize();
        return new CudaDevice(ordinal);
    }

    /// <summary>All devices.</summary>
    public static IReadOnlyList<CudaDevice> All() => [.. Enumerable.Range(0, Count).Select(Get)];

    /// <summary>One of the device's properties.</summary>
    public int Attribute(CuDeviceAttribute attribute)
    {
        int value;
        Check.Ok(CuDriver.cuDeviceGetAttribute(&value, attribute, Handle));
        return value;
    }

    /// <inheritdoc/>
    public override string ToString() => $"{Name} (device {Ordinal}, compute capability {ComputeCapability})";
}
