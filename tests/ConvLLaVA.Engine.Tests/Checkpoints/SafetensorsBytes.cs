using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

/// <summary>Builds safetensors files by hand, independent of the writer under test, and broken ones.</summary>
internal static class SafetensorsBytes
{
    public static byte[] Raw(string header, int dataBytes) => Raw(header, new byte[dataBytes]);

    public static byte[] Raw(string header, byte[] data)
    {
        byte[] text = Encoding.UTF8.GetBytes(header);
        byte[] length = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(length, text.Length);
        return [.. length, .. text, .. data];
    }

    /// <summary>A float32 file with every element of tensor n equal to its index plus 1000 n.</summary>
    public static byte[] Of(IEnumerable<(string Name, long[] Shape)> tensors)
    {
        List<string> entries = [];
        List<float> data = [];
        foreach ((string name, long[] shape) in tensors)
        {
            long count = shape.Aggregate(1L, (product, extent) => product * extent);
            int begin = data.Count * 4;
            for (int i = 0; i < count; i++) data.Add(i + (1000 * entries.Count));
            entries.Add($"\"{name}\":{{\"dtype\":\"F32\",\"shape\":[{string.Join(",", shape)}],\"data_offsets\":[{begin},{data.Count * 4}]}}");
        }
        return Raw("{" + string.Join(",", entries) + "}", MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(data)).ToArray());
    }
}
