using System.Runtime.CompilerServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>What happens to the finished sums of a matrix product.</summary>
internal enum EpilogueKind
{
    /// <summary>Written.</summary>
    Store,

    /// <summary>Written after GELU.</summary>
    Gelu,

    /// <summary>Added to what is there.</summary>
    Accumulate,
}

/// <summary>One matrix product: output[m, n] (=, += or after GELU) scale[n] * sum_k input[m, k] * weight[n, k] + bias[n].</summary>
/// <param name="Input">[rows, InputStride]</param>
/// <param name="InputStride">Floats from one row to the next.</param>
/// <param name="Rows">Rows of input and output.</param>
/// <param name="Weight">[out, in]</param>
/// <param name="Kind">What happens to the sums.</param>
/// <param name="Output">[rows, OutputStride]</param>
/// <param name="OutputStride">Floats from one row to the next.</param>
/// <param name="Blocks">How it is cut.</param>
internal readonly record struct GemmCall(nint Input, int InputStride, int Rows, CpuLinear Weight, EpilogueKind Kind, nint Output, int OutputStride,
    GemmBlocks Blocks);

/// <summary>The matrix product on one instruction set. The sums over k are cut into equal parts of at most <see cref="GemmBlocks.KBlock"/>
/// elements, with what does not fill a vector behind them, wherever else the work is cut; a row's result so does not depend on how many
/// rows come with it.</summary>
internal static unsafe class Gemm<V, S> where V : struct where S : struct, ISimd<V>
{
    /// <summary>Up to so many rows, weights are widened in registers on their way through: that costs less than storing and
    /// reloading them for so few uses. Measured for bfloat16, 4096 x 4096, one Zen 4 core: 78 % of peak against 50 % at 24
    /// rows, 80 % against about 60 % at 48; at 96 rows the two could not be told apart.</summary>
    private const int DirectRows = 48;

    /// <summary>The same for binary16, whose widening is more work: 54 % against 49 % at 24 rows.</summary>
    private const int DirectRowsOfHalf = 24;

    /// <summary>Weight rows of a task of the direct way.</summary>
    private const int DirectBlock = 32;

    /// <summary>Multiplications below which waking the workers costs more than they would save.</summary>
    private const long WorthHandingOut = 100_000;

    private const int KBlock = GemmBlocks.KBlock;

    /// <summary>Floats of scratch memory each worker needs: widened weights, sums and the ends of rows. The direct way needs less.</summary>
    public static int ScratchFloats(GemmBlocks blocks) => blocks.Columns * KBlock + blocks.Rows * (blocks.Columns + Simd.Lanes);

    /// <summary>Computes the product on all workers.</summary>
    public static void Run(WorkerPool pool, Scratch scratch, GemmCall call)
    {
        int columns = call.Weight.OutFeatures;
        if (call.Rows == 0 || columns == 0) return;
        if (call.Rows <= (call.Weight.DType == DType.Float16 ? DirectRowsOfHalf : DirectRows))
        {
            if ((long)call.Rows * columns * call.Weight.InFeatures < WorthHandingOut)
            {
                for (int n = 0; n < columns; n += DirectBlock) Direct(call, n, Math.Min(DirectBlock, columns - n), scratch.Of(0));
                return;
            }
            var direct = new DirectWork(call, scratch);
            pool.RunInShares(columns, DirectBlock, ref direct);
            return;
        }
        (int rowBlock, int columnBlock) = call.Blocks.Tasks(call.Rows, columns, pool.Threads);
        int down = (call.Rows + rowBlock - 1) / rowBlock;
        int across = (columns + columnBlock - 1) / columnBlock;
        var packed = new PackedWork(call, scratch, rowBlock, columnBlock, down, pool.Threads);
        pool.Run(down * across, 1, ref packed);
    }

    private readonly struct DirectWork(GemmCall call, Scratch scratch) : IWork
    {
        public void Do(int first, int end, int worker) => Direct(call, first, end - first, scratch.Of(worker));
    }

    private readonly struct PackedWork(GemmCall call, Scratch scratch, int rowBlock, int columnBlock, int down, int threads) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            // Tasks that follow each other use the same weights: they are then in the shared cache.
            int m = first % down * rowBlock, n = first / down * columnBlock;
            // A guess, the others being as fast; other groups of rows use the same weights.
            int following = down == 1 ? n + threads * columnBlock : n;
            Packed(call, m, Math.Min(rowBlock, call.Rows - m), n, Math.Min(columnBlock, call.Weight.OutFeatures - n), following, scratch.Of(worker));
        }
    }

    // Equal parts, because a short last one would pay for the sums across lanes with little work.
    private static int PartOf(int whole)
    {
        int parts = (whole + KBlock - 1) / KBlock;
        return parts <= 1 ? KBlock : Simd.RoundUp((whole + parts - 1) / parts);
    }

    private static void Direct(in GemmCall call, int n0, int count, float* scratch)
    {
        switch (call.Weight.DType)
        {
            case DType.Float32: Direct<Float32Element>(call, n0, count, scratch); break;
            case DType.Float16 when call.Weight.IsFinite: Direct<FiniteHalfElement>(call, n0, count, scratch); break;
            case DType.Float16: Direct<HalfElement>(call, n0, count, scratch); break;
            default: Direct<BFloat16Element>(call, n0, count, scratch); break;
        }
    }

    private static void Direct<TW>(in GemmCall call, int n0, int count, float* scratch) where TW : struct, IElement
    {
        CpuLinear weight = call.Weight;
        int k = weight.InFeatures, whole = k & ~(Simd.Lanes - 1), tail = k - whole, part = PartOf(whole), stride = count + 4;
        nint rowBytes = (nint)k * TW.Size;
        float* sums = scratch;                                      // [rows, stride]
        float* inputTail = sums + DirectRows * (DirectBlock + 4);   // [rows, 16]
        float* weightTail = inputTail + DirectRows * Simd.Lanes;    // [4, 16]
        if (tail != 0) PadTails(call, 0, call.Rows, whole, inputTail);
        for (int n = 0; n < count;)
        {
            byte* row = (byte*)weight.Row(n0 + n);
            int left = Math.Min(weight.RowsLeftInBlock(n0 + n), count - n);
            while (left > 0)
            {
                // Fewer than four rows left: one row as if it were four; the next one overwrites the columns too many.
                int used = left >= 4 ? 4 : 1;
                nint apart = used == 4 ? rowBytes : 0;
                for (int k0 = 0; k0 < whole; k0 += part)
                {
                    GemmTile<V, S, TW>.Panel(call.Rows, (float*)call.Input + k0, call.InputStride, row + (nint)k0 * TW.Size, apart,
                        Simd.Lanes * TW.Size, Math.Min(part, whole - k0), sums + n, stride, k0 != 0);
                }
                if (tail != 0)
                {
                    for (int i = 0; i < 4; i++)
                        S.Store(weightTail + i * Simd.Lanes, TW.LoadPartial<V, S>(row + i * apart + (nint)whole * TW.Size, tail));
                    GemmTile<V, S, PackedElement>.Panel(call.Rows, inputTail, Simd.Lanes, (byte*)weightTail, Simd.Lanes * sizeof(float),
                        0, Simd.Lanes, sums + n, stride, whole != 0);
                }
                row += used * rowBytes;
                n += used;
                left -= used;
            }
        }
        Epilogue(call, 0, call.Rows, n0, count, sums, stride);
    }

    // following: column with which this worker is likely to go on
    private static void Packed(in GemmCall call, int m0, int rows, int n0, int count, int following, float* scratch)
    {
        int k = call.Weight.InFeatures, whole = k & ~(Simd.Lanes - 1), part = PartOf(whole);
        int stride = (count + 3) & ~3;
        float* panels = scratch;                                // [panels, steps, 4, 16]
        float* sums = panels + call.Blocks.Columns * KBlock;          // [rows, stride]
        float* inputTail = sums + call.Blocks.Rows * call.Blocks.Columns;   // [rows, 16]
        for (int k0 = 0; k0 < whole; k0 += part)
        {
            int length = Math.Min(part, whole - k0);
            Pack(call.Weight, n0, count, k0, length, panels);
            int strips = (rows + 5) / 6, left = whole - k0 - length;
            GemmAhead ahead = left > 0 ? new GemmAhead(call.Weight, n0, count, k0 + length, Math.Min(part, left), strips)
                : following != n0 ? new GemmAhead(call.Weight, following, count, 0, Math.Min(part, whole), strips) : default;
            Multiply(call, m0, rows, n0, count, ahead, (float*)call.Input + (nint)m0 * call.InputStride + k0, call.InputStride, panels, length,
                sums, stride, k0 != 0, k0 + length == k);
        }
        if (whole != k)
        {
            Pack(call.Weight, n0, count, whole, k - whole, panels);
            PadTails(call, m0, rows, whole, inputTail);
            Multiply(call, m0, rows, n0, count, default, inputTail, Simd.Lanes, panels, Simd.Lanes, sums, stride, whole != 0, true);
        }
    }

    // Optimised at once: what the runtime learns from the first products it sees, small ones, made this loop a tenth slower.
    // a [rows, lda], panels [count / 4, length / 16, 4, 16], sums [rows, stride], or [6, stride] where there is but one part
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private static void Multiply(in GemmCall call, int m0, int rows, int n0, int count, GemmAhead ahead, float* a, nint lda, float* panels,
        int length, float* sums, nint stride, bool add, bool last)
    {
        // Six rows of input stay in the first-level cache while all panels pass by.
        for (int m = 0; m < rows; m += 6)
        {
            int some = Math.Min(6, rows - m);
            float* to = last && !add ? sums : sums + m * stride;
            for (int n = 0; n < count; n += 4)
            {
                ahead.Panel(n / 4);
                GemmTile<V, S, PackedElement>.Panel(some, a + m * lda, lda, (byte*)(panels + (nint)n * length),
                    Simd.Lanes * sizeof(float), 4 * Simd.Lanes * sizeof(float), length, to + n, stride, add);
            }
            ahead.NextStrip();
            if (last) Epilogue(call, m0 + m, some, n0, count, to, stride);
        }
    }

    // The columns from first on of rows m0.., zeros behind. tails [rows, 16]
    private static void PadTails(in GemmCall call, int m0, int rows, int first, float* tails)
    {
        for (int m = 0; m < rows; m++)
        {
            float* from = (float*)call.Input + (nint)(m0 + m) * call.InputStride + first;
            S.Store(tails + m * Simd.Lanes, Simd.LoadPartial<V, S>(from, call.Weight.InFeatures - first));
        }
    }

    private static void Pack(CpuLinear weight, int n0, int count, int k0, int length, float* panels)
    {
        switch (weight.DType)
        {
            case DType.Float32: Pack<Float32Element>(weight, n0, count, k0, length, panels); break;
            case DType.Float16 when weight.IsFinite: Pack<FiniteHalfElement>(weight, n0, count, k0, length, panels); break;
            case DType.Float16: Pack<HalfElement>(weight, n0, count, k0, length, panels); break;
            default: Pack<BFloat16Element>(weight, n0, count, k0, length, panels); break;
        }
    }

    /// <summary>Widens weights into panels of four rows, zeros where rows or columns are missing.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Pack<TW>(CpuLinear weight, int n0, int count, int k0, int length, float* panels) where TW : struct, IElement
    {
        int padded = Simd.RoundUp(length), tail = length % Simd.Lanes;
        int panelRows = (count + 3) & ~3;
        for (int n = 0; n < panelRows; n++)
        {
            float* to = panels + (nint)(n / 4) * 4 * padded + n % 4 * Simd.Lanes;
            if (n >= count)
            {
                for (int step = 0; step < padded / Simd.Lanes; step++) S.Store(to + step * 4 * Simd.Lanes, S.Zero);
                continue;
            }
            byte* from = (byte*)weight.Row(n0 + n) + (nint)k0 * TW.Size;
            for (int step = length / Simd.Lanes; step > 0; step--)
            {
                S.Store(to, TW.Load<V, S>(from));
                from += Simd.Lanes * TW.Size;
                to += 4 * Simd.Lanes;
            }
            if (tail != 0) S.Store(to, TW.LoadPartial<V, S>(from, tail));
        }
    }

    // sums [rows, stride] to output rows m0.., columns n0..
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Epilogue(in GemmCall call, int m0, int rows, int n0, int count, float* sums, nint stride)
    {
        float* bias = call.Weight.Bias == 0 ? null : (float*)call.Weight.Bias + n0;
        float* scale = call.Weight.Scale == 0 ? null : (float*)call.Weight.Scale + n0;
        int whole = count & ~(Simd.Lanes - 1), tail = count - whole;
        for (int m = 0; m < rows; m++)
        {
            float* from = sums + m * stride;
            float* to = (float*)call.Output + (nint)(m0 + m) * call.OutputStride + n0;
            for (int n = 0; n < whole; n += Simd.Lanes)
            {
                V y = S.Load(from + n);
                if (scale != null) y = S.Multiply(y, S.Load(scale + n));
                if (bias != null) y = S.Add(y, S.Load(bias + n));
                if (call.Kind == EpilogueKind.Gelu) y = Elementary<V, S>.Gelu(y);
                if (call.Kind == EpilogueKind.Accumulate) y = S.Add(S.Load(to + n), y);
                S.Store(to + n, y);
            }
            if (tail != 0)
            {
                V y = Simd.LoadPartial<V, S>(from + whole, tail);
                if (scale != null) y = S.Multiply(y, Simd.LoadPartial<V, S>(scale + whole, tail));
                if (bias != null) y = S.Add(y, Simd.LoadPartial<V, S>(bias + whole, tail));
                if (call.Kind == EpilogueKind.Gelu) y = Elementary<V, S>.Gelu(y);
                if (call.Kind == EpilogueKind.Accumulate) y = S.Add(Simd.LoadPartial<V, S>(to + whole, tail), y);
                Simd.StorePartial<V, S>(to + whole, y, tail);
            }
        }
    }
}
