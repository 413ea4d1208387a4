using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using ConvLLaVA.Engine.Quantization;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Two blocks of sixteen weight rows; when the matrix ends with one, the second is the first again and its sums are dropped.</summary>
internal readonly unsafe struct QuantPanel
{
    private static readonly float* s_nf4 = CopyTable();
    private readonly byte* _scales0;
    private readonly byte* _scales1;
    private readonly int _shift;

    /// <summary>The panel that starts with block <paramref name="block"/>.</summary>
    public QuantPanel(CpuQuantLinear weight, int block)
    {
        int second = Math.Min(block + 1, weight.Blocks - 1);
        Kind = weight.Kind;
        _shift = weight.ScaleShift;
        Codes0 = (byte*)weight.Codes + (block * weight.BlockBytes);
        Codes1 = (byte*)weight.Codes + (second * weight.BlockBytes);
        if (weight.GroupScales == 0) return;
        long bytes = (long)weight.ScalesPerRow * Simd.Lanes * (Kind == QuantKind.Nf4 ? sizeof(float) : sizeof(ushort));
        _scales0 = (byte*)weight.GroupScales + (block * bytes);
        _scales1 = (byte*)weight.GroupScales + (second * bytes);
    }

    /// <summary>Kernel.</summary>
    public QuantKind Kind { get; }

    /// <summary>The first block's codes.</summary>
    public byte* Codes0 { get; }

    /// <summary>The second block's.</summary>
    public byte* Codes1 { get; }

    /// <summary>Whether groups have float16 scales.</summary>
    public bool HasHalfScales => _scales0 != null;

    /// <summary>The values of nf4. [16]</summary>
    public float* Table => s_nf4;

    /// <summary>The float16 scales of the group of weights that group <paramref name="g"/> of activations falls into.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void HalfScales<V, S>(int g, out V first, out V second) where V : struct where S : struct, ISimd<V>
    {
        nint at = (nint)(g >> _shift) * Simd.Lanes;
        first = S.LoadHalf((ushort*)_scales0 + at);
        second = S.LoadHalf((ushort*)_scales1 + at);
    }

    /// <summary>The float32 scales of a block of nf4.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void SingleScales<V, S>(int block, out V first, out V second) where V : struct where S : struct, ISimd<V>
    {
        nint at = (nint)block * Simd.Lanes;
        first = S.Load((float*)_scales0 + at);
        second = S.Load((float*)_scales1 + at);
    }

    /// <summary>Has memory brought near that will be read soon. It may lie beyond the matrix.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Prefetch(void* address, int bytes)
    {
        if (!Sse.IsSupported) return;
        for (int at = 0; at < bytes; at += 64) Sse.Prefetch0((byte*)address + at);
    }

    private static float* CopyTable()
    {
        var table = (float*)NativeMemory.AlignedAlloc(Simd.Lanes * sizeof(float), 64); // for as long as the process lives
        Nf4.Values.CopyTo(new Span<float>(table, Simd.Lanes));
        return table;
    }
}
