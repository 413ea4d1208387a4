using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Quantization;

/// <summary>Quantises whole matrices on several threads, with the bits of <see cref="QuantReference"/>.</summary>
internal static unsafe class QuantEncoder
{
    private const int Lanes = 16;
    private const int ElementsPerTask = 1 << 18;

    /// <summary>Quantises <paramref name="weight"/> <c>[out, in]</c> into memory of its own, which the result's owner frees.</summary>
    /// <exception cref="InvalidInputException">A weight is not finite.</exception>
    public static QuantizedBytes Encode(WeightTensor weight, QuantLayout layout, int threads)
    {
        var memory = new EncodedMemory(layout);
        try
        {
            float offset = layout.Format == QuantFormat.Nf4 ? EncodeNf4(weight, layout, memory, threads) : EncodeRows(weight, layout, memory, threads);
            return new QuantizedBytes(memory.Codes, memory.Scales, memory.AbsMax, offset, memory);
        }
        catch
        {
            memory.Dispose();
            throw;
        }
    }

    private static float EncodeRows(WeightTensor weight, QuantLayout layout, EncodedMemory memory, int threads)
    {
        int rowsPerTask = Math.Max(1, ElementsPerTask / layout.Columns), scaleBytes = layout.ScalesPerRow * layout.ScaleType.SizeInBytes();
        nint data = weight.Data; // made here and not by one of the threads
        Run((layout.Rows + rowsPerTask - 1) / rowsPerTask, threads, task =>
        {
            using var row = new PaddedRow(layout.Columns);
            for (int r = (int)task * rowsPerTask; r < Math.Min(layout.Rows, (task + 1) * rowsPerTask); r++)
            {
                row.Read(weight, (long)r * layout.Columns);
                EncodeRow(layout, row.Data, new Span<byte>((byte*)memory.Codes + ((long)r * layout.RowBytes), layout.RowBytes),
                    new Span<byte>((byte*)memory.Scales + ((long)r * scaleBytes), scaleBytes));
            }
        });
        GC.KeepAlive(data);
        return 0;
    }

    /// <summary>Encodes one row, behind which 15 zeros lie.</summary>
    internal static void EncodeRow(QuantLayout layout, float* row, Span<byte> codes, Span<byte> scales)
    {
        int columns = layout.Columns, size = layout.Format.GroupSize();
        switch (layout.Format)
        {
            case QuantFormat.Q8:
                Span<Half> halves = MemoryMarshal.Cast<byte, Half>(scales);
                for (int g = 0; g < halves.Length; g++)
                {
                    int count = Math.Min(size, columns - (g * size));
                    halves[g] = QuantReference.GroupScale(AbsMax(row + (g * size), count) / 127);
                    EncodeInt8(row + (g * size), count, (float)halves[g], codes[(g * size)..]);
                }
                break;
            case QuantFormat.Q8Row or QuantFormat.Int8:
                float largest = AbsMax(row, columns);
                MemoryMarshal.Write(scales, layout.Format == QuantFormat.Int8 ? largest : largest / 127);
                EncodeInt8(row, columns, largest / 127, codes);
                break;
            case QuantFormat.Q4 or QuantFormat.Q4Group128:
                Span<Half> four = MemoryMarshal.Cast<byte, Half>(scales);
                float* found = stackalloc float[128];
                for (int g = 0; g < four.Length; g++)
                {
                    int count = Math.Min(size, columns - (g * size));
                    four[g] = Q4VectorSearch.Scale(row + (g * size), count, found);
                    for (int i = 0; i < count; i += 2)
                        codes[((g * size) + i) / 2] = (byte)(((int)found[i] + 8) | (((int)found[i + 1] + 8) << 4));
                }
                break;
            default:
                QuantReference.EncodeRow(layout.Format, new ReadOnlySpan<float>(row, columns), codes, scales);
                break;
        }
    }

    private static float EncodeNf4(WeightTensor weight, QuantLayout layout, EncodedMemory memory, int threads)
    {
        const int blocksPerTask = ElementsPerTask / 64;
        var largest = new float[layout.ScaleCount];
        nint data = weight.Data;
        Run((layout.ScaleCount + blocksPerTask - 1) / blocksPerTask, threads, task =>
        {
            using var row = new PaddedRow(64);
            for (long b = task * blocksPerTask; b < Math.Min(layout.ScaleCount, (task + 1) * blocksPerTask); b++)
            {
                int count = (int)Math.Min(64, weight.ElementCount - (b * 64));
                row.Read(weight, b * 64, count);
                largest[b] = AbsMax(row.Data, count);
                float inverse = largest[b] == 0 ? 0 : 1 / largest[b];
                byte* codes = (byte*)memory.Codes + (b * 32);
                for (int i = 0; i < count; i += 2)
                    codes[i / 2] = (byte)((Nf4.Nearest(Nf4.Values, row.Data[i] * inverse) << 4) | Nf4.Nearest(Nf4.Values, row.Data[i + 1] * inverse));
            }
        });
        GC.KeepAlive(data);
        return QuantReference.EncodeNf4Scales(largest, new Span<byte>((void*)memory.Scales, checked((int)layout.ScaleCount)),
            new Span<float>((void*)memory.AbsMax, checked((int)layout.AbsMaxCount)));
    }

    private static void Run(long tasks, int threads, Action<long> body)
    {
        try
        {
            Parallel.For(0, tasks, new ParallelOptions { MaxDegreeOfParallelism = threads }, body);
        }
        catch (AggregateException error) when (error.InnerExceptions.OfType<InvalidInputException>().FirstOrDefault() is { } input)
        {
            throw new InvalidInputException(input.Message, input);
        }
    }

    /// <summary>The largest magnitude; zeros lie behind the last value.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static float AbsMax(float* values, int count)
    {
        // Groups but the last hold whole vectors, so what lies behind belongs to nobody.
        Vector512<float> most = Vector512<float>.Zero;
        for (int i = 0; i < count; i += Lanes) most = Vector512.Max(most, Vector512.Abs(Vector512.Load(values + i)));
        Vector256<float> eight = Vector256.Max(most.GetLower(), most.GetUpper());
        Vector128<float> four = Vector128.Max(eight.GetLower(), eight.GetUpper());
        return MathF.Max(MathF.Max(four[0], four[1]), MathF.Max(four[2], four[3]));
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void EncodeInt8(float* values, int count, float scale, Span<byte> codes)
    {
        if (scale == 0)
        {
            codes[..count].Clear();
            return;
        }
        Vector512<float> divisor = Vector512.Create(scale), most = Vector512.Create(127f);
        int* whole = stackalloc int[Lanes];
        for (int i = 0; i < count; i += Lanes)
        {
            Vector512<float> rounded = Vector512.Round(Vector512.Load(values + i) / divisor);
            Vector512.ConvertToInt32(Vector512.Min(Vector512.Max(rounded, -most), most)).Store(whole);
            for (int l = 0; l < Math.Min(Lanes, count - i); l++) codes[i + l] = (byte)whole[l];
        }
    }

    /// <summary>A row widened to floats, with zeros behind it up to whole vectors. A weight that is not finite is refused.</summary>
    private readonly struct PaddedRow(int columns) : IDisposable
    {
        public float* Data { get; } = (float*)NativeMemory.AlignedAlloc((nuint)((columns + (2 * Lanes)) * sizeof(float)), 64);

        public void Read(WeightTensor weight, long start) => Read(weight, start, columns);

        public void Read(WeightTensor weight, long start, int count)
        {
            var values = new Span<float>(Data, count);
            TensorConversion.ToFloat32(weight, start, values);
            new Span<float>(Data + count, Lanes).Clear();
            // A sum of absolute values is finite only if they all are, except when it overflows, which is then looked at more closely.
            Vector512<float> sum = Vector512<float>.Zero;
            for (int i = 0; i < count; i += Lanes) sum += Vector512.Abs(Vector512.Load(Data + i));
            if (float.IsFinite(Vector512.Sum(sum))) return;
            foreach (float value in values)
            {
                if (!float.IsFinite(value)) throw new InvalidInputException($"The tensor {weight.Name} in {weight.Source} holds {value}, which cannot be quantised, expected finite numbers.");
            }
        }

        public void Dispose() => NativeMemory.AlignedFree(Data);
    }

    /// <summary>The parts of one quantised matrix, one behind the other.</summary>
    private sealed class EncodedMemory : IDisposable
    {
        private readonly long _bytes;
        private nint _data;

        public EncodedMemory(QuantLayout layout)
        {
            long scales = RoundUp(layout.CodeBytes), absMax = scales + RoundUp(layout.ScaleBytes);
            _bytes = absMax + RoundUp(layout.AbsMaxCount * sizeof(float)) + 64;
            _data = MappedPages.Take(_bytes);
            Codes = _data;
            Scales = _data + (nint)scales;
            AbsMax = layout.AbsMaxCount == 0 ? 0 : _data + (nint)absMax;
        }

        public nint Codes { get; }

        public nint Scales { get; }

        public nint AbsMax { get; }

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _data, 0) is not 0 and var data) MappedPages.Free(data, _bytes);
        }

        private static long RoundUp(long bytes) => (bytes + 63) / 64 * 64;
    }
}
