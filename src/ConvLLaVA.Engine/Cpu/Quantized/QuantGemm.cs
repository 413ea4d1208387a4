using System.Runtime.CompilerServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>One product with quantised weights: output[m, n] (=, += or after GELU) sum_k input[m, k] * weight[n, k] + bias[n].</summary>
/// <param name="Input">The prepared input.</param>
/// <param name="Weight">The matrix.</param>
/// <param name="Kind">What happens to the sums.</param>
/// <param name="Output">[rows, OutputStride]</param>
/// <param name="OutputStride">Floats from one row to the next.</param>
internal readonly record struct QuantCall(QuantInput Input, CpuQuantLinear Weight, EpilogueKind Kind, nint Output, int OutputStride);

/// <summary>Products with quantised weights, 32 rows of weights at a time: they are read from memory once and stay in the second-level
/// cache while all tokens pass by.</summary>
internal static unsafe class QuantGemm<V, S, I, Q> where V : struct where S : struct, ISimd<V> where I : struct where Q : struct, IIntegers<I, V>
{
    private const int PanelRows = 2 * Simd.Lanes;

    /// <summary>Panels of 32 rows, the units of work.</summary>
    public static int Panels(CpuQuantLinear weight) => (weight.OutFeatures + PanelRows - 1) / PanelRows;

    /// <summary>Computes panels <paramref name="first"/> .. <paramref name="end"/> - 1 of the output.</summary>
    public static void Run(in QuantCall call, int first, int end)
    {
        float* sums = stackalloc float[Int8Tile<V, S, I, Q>.MostTokens * PanelRows];
        for (int p = first; p < end; p++)
        {
            var panel = new QuantPanel(call.Weight, 2 * p);
            for (int row = 0; row < call.Input.Rows;)
            {
                int tokens = panel.Kind switch
                {
                    QuantKind.Int8 => Int8Tile<V, S, I, Q>.Run(panel, call.Input, row, sums),
                    QuantKind.Int4 => Int4Tile<V, S, I, Q>.Run(panel, call.Input, row, sums),
                    _ => FloatTile<V, S, I, Q>.Run(panel, call.Input, row, sums),
                };
                for (int t = 0; t < tokens; t++)
                {
                    if (call.Weight.Format == QuantFormat.Int8) AddOutliers(panel, call.Input, row + t, sums + (t * PanelRows));
                    Epilogue(call, row + t, p * PanelRows, sums + (t * PanelRows));
                }
                row += tokens;
            }
        }
    }

    // Columns whose activation is too large for the integers, in floats and in order.
    private static void AddOutliers(in QuantPanel panel, in QuantInput x, int row, float* sums)
    {
        int* outliers = x.Outliers + ((nint)row * (1 + x.Columns));
        int count = outliers[0];
        if (count == 0) return;
        short* choose = stackalloc short[2];
        V a = S.Load(sums), b = S.Load(sums + Simd.Lanes);
        for (int i = 1; i <= count; i++)
        {
            int column = outliers[i];
            choose[column % 2] = 1;
            choose[1 - (column % 2)] = 0;
            I one = Q.BroadcastPair(choose);
            V value = S.Broadcast(x.Source[(row * x.SourceStride) + column]);
            nint at = (nint)(column / 2) * 2 * Simd.Lanes;
            a = S.MultiplyAdd(Q.ToFloat(Q.MultiplyPairs(Q.LoadPairs((sbyte*)panel.Codes0 + at), one)), value, a);
            b = S.MultiplyAdd(Q.ToFloat(Q.MultiplyPairs(Q.LoadPairs((sbyte*)panel.Codes1 + at), one)), value, b);
        }
        S.Store(sums, a);
        S.Store(sums + Simd.Lanes, b);
    }

    // sums [32] to columns n0.. of one output row
    private static void Epilogue(in QuantCall call, int row, int n0, float* sums)
    {
        float* to = (float*)call.Output + ((nint)row * call.OutputStride) + n0;
        float* scales = call.Weight.RowScales == 0 ? null : (float*)call.Weight.RowScales + n0;
        float* bias = call.Weight.Bias == 0 ? null : (float*)call.Weight.Bias + n0;
        for (int n = 0; n < PanelRows && n0 + n < call.Weight.OutFeatures; n += Simd.Lanes)
        {
            int left = call.Weight.OutFeatures - n0 - n;
            V y = S.Load(sums + n);
            if (scales != null) y = S.Multiply(y, S.Load(scales + n));
            if (bias != null) y = S.Add(y, left >= Simd.Lanes ? S.Load(bias + n) : Simd.LoadPartial<V, S>(bias + n, left));
            if (call.Kind == EpilogueKind.Gelu) y = Elementary<V, S>.Gelu(y);
            if (call.Kind == EpilogueKind.Accumulate) y = S.Add(left >= Simd.Lanes ? S.Load(to + n) : Simd.LoadPartial<V, S>(to + n, left), y);
            if (left >= Simd.Lanes) S.Store(to + n, y);
            else Simd.StorePartial<V, S>(to + n, y, left);
        }
    }
}
