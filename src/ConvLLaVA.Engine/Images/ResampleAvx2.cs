using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Images;

/// <summary>AVX2: two source rows per register (one in each half), two taps per multiply. A 22-bit weight is split into signed 16-bit
/// halves so that <c>vpmaddwd</c> can be used; both partial sums wrap modulo 2^32 and their recombination is exact.</summary>
internal readonly unsafe struct Avx2Kernel : IResampleKernel
{
    private const byte Zero = 0x80;

    // Four packed pixels r0 g0 b0 r1 g1 b1 … -> 16-bit pairs (r0 r1)(g0 g1)(b0 b1)(0 0) and the same for pixels 2 and 3.
    private static Vector128<byte> FirstPair => Vector128.Create(0, Zero, 3, Zero, 1, Zero, 4, Zero, 2, Zero, 5, Zero, Zero, Zero, Zero, Zero);

    private static Vector128<byte> SecondPair => Vector128.Create(6, Zero, 9, Zero, 7, Zero, 10, Zero, 8, Zero, 11, Zero, Zero, Zero, Zero, Zero);

    /// <inheritdoc/>
    public static void Horizontal(byte** source, byte** target, AxisFilter filter)
    {
        byte* in0 = source[0], in1 = source[1], in2 = source[2], in3 = source[3];
        byte* out0 = target[0], out1 = target[1], out2 = target[2], out3 = target[3];
        Vector256<byte> firstPair = Vector256.Create(FirstPair, FirstPair), secondPair = Vector256.Create(SecondPair, SecondPair);
        fixed (short* lowStart = filter.Low, highStart = filter.High)
        {
            short* low = lowStart, high = highStart;
            foreach (int first in filter.First)
            {
                nint at = 3 * (nint)first;
                Vector256<int> lowA = Vector256.Create(AxisFilter.Rounding), lowB = lowA;
                Vector256<int> highA = Vector256<int>.Zero, highB = highA;
                for (int tap = 0; tap < filter.Taps; tap += 4, at += 12, low += 4, high += 4)
                {
                    Vector256<byte> rowsA = Vector256.Create(Vector128.Load(in0 + at), Vector128.Load(in1 + at));
                    Vector256<byte> rowsB = Vector256.Create(Vector128.Load(in2 + at), Vector128.Load(in3 + at));
                    Vector256<short> weightLow = Vector256.Create(*(int*)low).AsInt16();
                    Vector256<short> weightHigh = Vector256.Create(*(int*)high).AsInt16();
                    Vector256<short> pairA = Avx2.Shuffle(rowsA, firstPair).AsInt16(), pairB = Avx2.Shuffle(rowsB, firstPair).AsInt16();
                    lowA += Avx2.MultiplyAddAdjacent(pairA, weightLow);
                    highA += Avx2.MultiplyAddAdjacent(pairA, weightHigh);
                    lowB += Avx2.MultiplyAddAdjacent(pairB, weightLow);
                    highB += Avx2.MultiplyAddAdjacent(pairB, weightHigh);
                    weightLow = Vector256.Create(*(int*)(low + 2)).AsInt16();
                    weightHigh = Vector256.Create(*(int*)(high + 2)).AsInt16();
                    pairA = Avx2.Shuffle(rowsA, secondPair).AsInt16();
                    pairB = Avx2.Shuffle(rowsB, secondPair).AsInt16();
                    lowA += Avx2.MultiplyAddAdjacent(pairA, weightLow);
                    highA += Avx2.MultiplyAddAdjacent(pairA, weightHigh);
                    lowB += Avx2.MultiplyAddAdjacent(pairB, weightLow);
                    highB += Avx2.MultiplyAddAdjacent(pairB, weightHigh);
                }
                // The packs work inside each half: half 0 = rows 0 and 2, half 1 = rows 1 and 3, four bytes each.
                Vector256<short> words = Avx2.PackSignedSaturate(Join(lowA, highA), Join(lowB, highB));
                Vector256<uint> pixels = Avx2.PackUnsignedSaturate(words, words).AsUInt32();
                *(uint*)out0 = pixels.GetElement(0);
                *(uint*)out2 = pixels.GetElement(1);
                *(uint*)out1 = pixels.GetElement(4);
                *(uint*)out3 = pixels.GetElement(5);
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
            for (nint i = 0; i < stride; i += 32)
            {
                Vector256<int> low0 = Vector256.Create(AxisFilter.Rounding), low1 = low0, low2 = low0, low3 = low0;
                Vector256<int> high0 = Vector256<int>.Zero, high1 = high0, high2 = high0, high3 = high0;
                byte* from = rows + i;
                for (int tap = 0; tap < taps; tap += 2, from += 2 * stride)
                {
                    Vector256<byte> a = Vector256.Load(from), b = Vector256.Load(from + stride);
                    Vector256<byte> lower = Avx2.UnpackLow(a, b), upper = Avx2.UnpackHigh(a, b);
                    Vector256<short> weightLow = Vector256.Create(*(int*)(low + tap)).AsInt16();
                    Vector256<short> weightHigh = Vector256.Create(*(int*)(high + tap)).AsInt16();
                    Vector256<short> pair = Avx2.UnpackLow(lower, Vector256<byte>.Zero).AsInt16();
                    low0 += Avx2.MultiplyAddAdjacent(pair, weightLow);
                    high0 += Avx2.MultiplyAddAdjacent(pair, weightHigh);
                    pair = Avx2.UnpackHigh(lower, Vector256<byte>.Zero).AsInt16();
                    low1 += Avx2.MultiplyAddAdjacent(pair, weightLow);
                    high1 += Avx2.MultiplyAddAdjacent(pair, weightHigh);
                    pair = Avx2.UnpackLow(upper, Vector256<byte>.Zero).AsInt16();
                    low2 += Avx2.MultiplyAddAdjacent(pair, weightLow);
                    high2 += Avx2.MultiplyAddAdjacent(pair, weightHigh);
                    pair = Avx2.UnpackHigh(upper, Vector256<byte>.Zero).AsInt16();
                    low3 += Avx2.MultiplyAddAdjacent(pair, weightLow);
                    high3 += Avx2.MultiplyAddAdjacent(pair, weightHigh);
                }
                Vector256<short> first = Avx2.PackSignedSaturate(Join(low0, high0), Join(low1, high1));
                Vector256<short> second = Avx2.PackSignedSaturate(Join(low2, high2), Join(low3, high3));
                Avx2.PackUnsignedSaturate(first, second).Store(target + i);
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> Join(Vector256<int> low, Vector256<int> high) => ((high << 16) + low) >> AxisFilter.FractionBits;
}
