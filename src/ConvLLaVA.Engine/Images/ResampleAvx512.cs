using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Images;

/// <summary>AVX-512 F and BW: the AVX2 scheme with four source rows, or 64 columns, per register.</summary>
internal readonly unsafe struct Avx512Kernel : IResampleKernel
{
    private const byte Zero = 0x80;

    private static Vector128<byte> FirstPair => Vector128.Create(0, Zero, 3, Zero, 1, Zero, 4, Zero, 2, Zero, 5, Zero, Zero, Zero, Zero, Zero);

    private static Vector128<byte> SecondPair => Vector128.Create(6, Zero, 9, Zero, 7, Zero, 10, Zero, 8, Zero, 11, Zero, Zero, Zero, Zero, Zero);

    /// <inheritdoc/>
    public static void Horizontal(byte** source, byte** target, AxisFilter filter)
    {
        byte* in0 = source[0], in1 = source[1], in2 = source[2], in3 = source[3];
        byte* out0 = target[0], out1 = target[1], out2 = target[2], out3 = target[3];
        Vector512<byte> firstPair = Four(FirstPair, FirstPair, FirstPair, FirstPair);
        Vector512<byte> secondPair = Four(SecondPair, SecondPair, SecondPair, SecondPair);
        fixed (short* lowStart = filter.Low, highStart = filter.High)
        {
            short* low = lowStart, high = highStart;
            foreach (int first in filter.First)
            {
                nint at = 3 * (nint)first;
                Vector512<int> lowA = Vector512.Create(AxisFilter.Rounding), lowB = Vector512<int>.Zero, highA = lowB, highB = lowB;
                for (int tap = 0; tap < filter.Taps; tap += 4, at += 12, low += 4, high += 4)
                {
                    Vector512<byte> rows = Four(Vector128.Load(in0 + at), Vector128.Load(in1 + at), Vector128.Load(in2 + at), Vector128.Load(in3 + at));
                    Vector512<short> pairA = Avx512BW.Shuffle(rows, firstPair).AsInt16();
                    Vector512<short> pairB = Avx512BW.Shuffle(rows, secondPair).AsInt16();
                    lowA += Avx512BW.MultiplyAddAdjacent(pairA, Vector512.Create(*(int*)low).AsInt16());
                    highA += Avx512BW.MultiplyAddAdjacent(pairA, Vector512.Create(*(int*)high).AsInt16());
                    lowB += Avx512BW.MultiplyAddAdjacent(pairB, Vector512.Create(*(int*)(low + 2)).AsInt16());
                    highB += Avx512BW.MultiplyAddAdjacent(pairB, Vector512.Create(*(int*)(high + 2)).AsInt16());
                }
                Vector512<int> sum = Join(lowA + lowB, highA + highB);
                Vector512<short> words = Avx512BW.PackSignedSaturate(sum, sum);
                Vector512<uint> pixels = Avx512BW.PackUnsignedSaturate(words, words).AsUInt32();
                *(uint*)out0 = pixels.GetElement(0);
                *(uint*)out1 = pixels.GetElement(4);
                *(uint*)out2 = pixels.GetElement(8);
                *(uint*)out3 = pixels.GetElement(12);
                out0 += 3;
                out1 += 3;
                out2 += 3;
                out3 += 3;
            }
        }
    }

    /// <inheritdoc/>
    public static void Vertical(byte* rows, nint stride, AxisFilter filter, int position, byte* target)
    {
        int taps = filter.Taps;
        fixed (short* low = &filter.Low[position * taps], high = &filter.High[position * taps])
        {
            for (nint i = 0; i < stride; i += 64)
            {
                Vector512<int> low0 = Vector512.Create(AxisFilter.Rounding), low1 = low0, low2 = low0, low3 = low0;
                Vector512<int> high0 = Vector512<int>.Zero, high1 = high0, high2 = high0, high3 = high0;
                byte* from = rows + i;
                for (int tap = 0; tap < taps; tap += 2, from += 2 * stride)
                {
                    Vector512<byte> a = Vector512.Load(from), b = Vector512.Load(from + stride);
                    Vector512<byte> lower = Avx512BW.UnpackLow(a, b), upper = Avx512BW.UnpackHigh(a, b);
                    Vector512<short> weightLow = Vector512.Create(*(int*)(low + tap)).AsInt16();
                    Vector512<short> weightHigh = Vector512.Create(*(int*)(high + tap)).AsInt16();
                    Vector512<short> pair = Avx512BW.UnpackLow(lower, Vector512<byte>.Zero).AsInt16();
                    low0 += Avx512BW.MultiplyAddAdjacent(pair, weightLow);
                    high0 += Avx512BW.MultiplyAddAdjacent(pair, weightHigh);
                    pair = Avx512BW.UnpackHigh(lower, Vector512<byte>.Zero).AsInt16();
                    low1 += Avx512BW.MultiplyAddAdjacent(pair, weightLow);
                    high1 += Avx512BW.MultiplyAddAdjacent(pair, weightHigh);
                    pair = Avx512BW.UnpackLow(upper, Vector512<byte>.Zero).AsInt16();
                    low2 += Avx512BW.MultiplyAddAdjacent(pair, weightLow);
                    high2 += Avx512BW.MultiplyAddAdjacent(pair, weightHigh);
                    pair = Avx512BW.UnpackHigh(upper, Vector512<byte>.Zero).AsInt16();
                    low3 += Avx512BW.MultiplyAddAdjacent(pair, weightLow);
                    high3 += Avx512BW.MultiplyAddAdjacent(pair, weightHigh);
                }
                Vector512<short> first = Avx512BW.PackSignedSaturate(Join(low0, high0), Join(low1, high1));
                Vector512<short> second = Avx512BW.PackSignedSaturate(Join(low2, high2), Join(low3, high3));
                Avx512BW.PackUnsignedSaturate(first, second).Store(target + i);
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<byte> Four(Vector128<byte> a, Vector128<byte> b, Vector128<byte> c, Vector128<byte> d) =>
        Vector512.Create(Vector256.Create(a, b), Vector256.Create(c, d));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<int> Join(Vector512<int> low, Vector512<int> high) => ((high << 16) + low) >> AxisFilter.FractionBits;
}
