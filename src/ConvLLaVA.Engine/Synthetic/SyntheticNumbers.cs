using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Synthetic;

/// <summary>Random numbers that are a function of seed, tensor name and position alone, so that any thread can write any piece and the
/// bytes are always the same. Uniform in offset ± spread.</summary>
internal readonly struct SyntheticNumbers
{
    private const int BlockElements = 2048;
    private readonly uint _start;
    private readonly uint _twist;
    private readonly float _scale;
    private readonly float _offset;

    /// <summary>The numbers of one tensor.</summary>
    public SyntheticNumbers(ulong seed, SyntheticTensor tensor)
    {
        ulong hash = 0xCBF29CE484222325; // FNV-1a over the name, which is ASCII
        foreach (char c in tensor.Name) hash = (hash ^ c) * 0x100000001B3;
        ulong key = Mix(Mix(seed + 0x9E3779B97F4A7C15) ^ hash);
        _start = (uint)key;
        _twist = (uint)(key >> 32);
        _scale = (float)(tensor.Spread / 2147483648.0);
        _offset = (float)tensor.Offset;
    }

    /// <summary>Writes elements from <paramref name="start"/> on, in the stored type, until <paramref name="destination"/> is full.</summary>
    public void Fill(long start, Span<byte> destination, DType dtype)
    {
        int size = dtype.SizeInBytes();
        Span<float> block = stackalloc float[BlockElements];
        for (int done = 0; done < destination.Length; done += BlockElements * size)
        {
            int count = Math.Min(BlockElements, (destination.Length - done) / size);
            Fill(start + (done / size), block[..count]);
            TensorConversion.Convert(MemoryMarshal.AsBytes(block[..count]), DType.Float32, destination.Slice(done, count * size), dtype);
        }
    }

    private void Fill(long start, Span<float> values)
    {
        int i = 0;
        Vector256<uint> lanes = Vector256.CreateSequence(0u, 1u);
        for (; i <= values.Length - 8; i += 8)
        {
            long position = start + i;
            // Eight neighbours share the upper half of the position unless they straddle 2^32.
            if ((position >> 32) != ((position + 7) >> 32)) break;
            Vector256<uint> x = Vector256.Create((uint)position) + lanes + Vector256.Create(Start(position));
            x ^= Vector256.ShiftRightLogical(x, 16);
            x *= Vector256.Create(0x7FEB352Du);
            x ^= Vector256.ShiftRightLogical(x, 15) ^ Vector256.Create(_twist);
            x *= Vector256.Create(0x846CA68Bu);
            x ^= Vector256.ShiftRightLogical(x, 16);
            ((Vector256.ConvertToSingle(x.AsInt32()) * Vector256.Create(_scale)) + Vector256.Create(_offset)).CopyTo(values[i..]);
        }
        for (; i < values.Length; i++)
        {
            uint x = (uint)(start + i) + Start(start + i);
            x ^= x >> 16;
            x *= 0x7FEB352D;
            x ^= (x >> 15) ^ _twist;
            x *= 0x846CA68B;
            x ^= x >> 16;
            values[i] = ((int)x * _scale) + _offset;
        }
    }

    private uint Start(long position) => _start + ((uint)(position >> 32) * 0x9E3779B9);

    private static ulong Mix(ulong x)
    {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
        return x ^ (x >> 31);
    }
}
