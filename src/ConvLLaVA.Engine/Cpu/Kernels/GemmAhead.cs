using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics.X86;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Brings the weights of the next part of a sum towards the processor while this part is computed, a few lines at every
/// register tile: reading them all at once, with nothing to compute meanwhile, took a tenth of a product of 144 rows.</summary>
internal unsafe struct GemmAhead
{
    private readonly nint _rowBytes;
    private readonly int _rowsEach;
    private readonly int _linesEach;
    private readonly int _end; // bytes of a row
    private byte* _from;
    private int _rows; // still to come

    /// <summary>Of columns [k0, k0 + length) of <paramref name="count"/> weight rows from <paramref name="n0"/> on.</summary>
    /// <param name="weight">The weights.</param>
    /// <param name="n0">First weight row; none of the matrix makes it do nothing.</param>
    /// <param name="count">Weight rows.</param>
    /// <param name="k0">First column.</param>
    /// <param name="length">Columns.</param>
    /// <param name="strips">How many times <see cref="NextStrip"/> is called.</param>
    public GemmAhead(CpuLinear weight, int n0, int count, int k0, int length, int strips)
    {
        if (n0 >= weight.OutFeatures || !Sse.IsSupported) return;
        int size = weight.DType.SizeInBytes(), panels = (count + 3) / 4;
        _rowBytes = (nint)weight.InFeatures * size;
        _from = (byte*)weight.Row(n0) + (nint)k0 * size;
        _end = length * size;
        // Rows of the next block of the matrix lie elsewhere; blocks are so large that this hardly matters.
        _rows = Math.Min(count, weight.RowsLeftInBlock(n0));
        _rowsEach = (count + strips - 1) / strips;
        _linesEach = ((_end + Simd.CacheLine - 1) / Simd.CacheLine + panels - 1) / panels;
    }

    /// <summary>Asks for what belongs to one panel of the running strip.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly void Panel(int panel)
    {
        if (!Sse.IsSupported) return;
        byte* row = _from;
        int first = panel * _linesEach * Simd.CacheLine, end = Math.Min(first + _linesEach * Simd.CacheLine, _end);
        for (int left = Math.Min(_rowsEach, _rows); left > 0; left--, row += _rowBytes)
        {
            for (int at = first; at < end; at += Simd.CacheLine) Simd.Prefetch(row + at);
        }
    }

    /// <summary>Goes on to the rows of the next strip.</summary>
    public void NextStrip()
    {
        _from += _rowsEach * _rowBytes;
        _rows -= _rowsEach;
    }
}
