using System.Runtime.InteropServices;
using ConvLLaVA.Cuda;

namespace ConvLLaVA.Kernels.Tests;

/// <summary>Elements in device memory, in an allocation of exactly their size, so that an access beyond is reported.</summary>
/// <param name="Buffer">The allocation.</param>
/// <param name="Count">Elements.</param>
/// <param name="Storage">Their type; null for integers and bytes.</param>
internal sealed record DeviceArray(DeviceBuffer Buffer, int Count, Storage? Storage);

/// <summary>One use of the emulated device: buffers, launches, answers. All buffers go when it ends.</summary>
internal sealed class KernelRun(CudaContext context, CudaStream stream) : IDisposable
{
    private readonly List<DeviceBuffer> _buffers = [];

    /// <summary>A device pointer that is null.</summary>
    public static readonly object NullPointer = new();

    /// <summary>Copies floats to the device, rounded to <paramref name="storage"/>.</summary>
    public DeviceArray Upload(ReadOnlySpan<float> values, Storage storage = Storage.F32)
    {
        DeviceArray array = new(Bytes(storage.Encode(values)), values.Length, storage);
        return array;
    }

    /// <summary>Copies integers or bytes to the device.</summary>
    public DeviceArray Upload<T>(ReadOnlySpan<T> values) where T : unmanaged => new(Bytes(MemoryMarshal.AsBytes(values)), values.Length, null);

    /// <summary>Memory for an answer, all NaN.</summary>
    public DeviceArray Allocate(int count, Storage storage)
    {
        var buffer = new DeviceBuffer(context, Math.Max(1, count * storage.Size()));
        _buffers.Add(buffer);
        stream.Fill(buffer.Address, 0xff, buffer.ByteLength);
        return new DeviceArray(buffer, count, storage);
    }

    /// <summary>Launches a kernel. Arguments are <see cref="DeviceArray"/>, int, long, float or <see cref="NullPointer"/>.</summary>
    public void Launch(Kernel kernel, string entry, Dim3 grid, int block, int sharedBytes, params ReadOnlySpan<object> arguments)
    {
        CudaFunction function = EmulatedDevice.Function(kernel, entry);
        if (sharedBytes > 48 * 1024) function.MaxDynamicSharedBytes = sharedBytes;
        var packed = default(KernelArguments);
        foreach (object argument in arguments)
        {
            switch (argument)
            {
                case DeviceArray array: packed.Add(array.Buffer.Address); break;
                case int number: packed.Add(number); break;
                case long number: packed.Add(number); break;
                case float number: packed.Add(number); break;
                case uint number: packed.Add(number); break;
                case ulong number: packed.Add(number); break;
                default: packed.Add(ReferenceEquals(argument, NullPointer) ? 0ul : throw new ArgumentException($"A kernel takes no {argument.GetType()}.")); break;
            }
        }
        function.Launch(stream, grid, new Dim3(block), (uint)sharedBytes, ref packed);
        stream.Synchronize();
    }

    /// <summary>Copies floats back.</summary>
    public float[] Read(DeviceArray array)
    {
        Storage storage = array.Storage ?? throw new ArgumentException("These are no floats.");
        byte[] bytes = new byte[array.Count * storage.Size()];
        stream.ReadBack<byte>(bytes, array.Buffer.Address);
        return storage.Decode(bytes);
    }

    /// <summary>Copies integers or bytes back.</summary>
    public T[] Read<T>(DeviceArray array) where T : unmanaged
    {
        var values = new T[array.Count];
        stream.ReadBack<T>(values, array.Buffer.Address);
        return values;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (DeviceBuffer buffer in _buffers) buffer.Dispose();
    }

    private DeviceBuffer Bytes(ReadOnlySpan<byte> bytes)
    {
        var buffer = new DeviceBuffer(context, Math.Max(1, bytes.Length));
        _buffers.Add(buffer);
        stream.CopyToDevice(buffer.Address, bytes);
        return buffer;
    }
}
