using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Brings quantised row blocks into the order of <see cref="CpuQuantLinear"/>.</summary>
internal sealed unsafe class QuantPacker
{
    private const int BlockRows = CpuQuantLinear.BlockRows;
    private readonly QuantLayout _whole;
    private readonly byte* _codes;
    private readonly byte* _groupScales;
    private readonly float* _rowScales;
    private readonly int _padded;
    private readonly long _blockBytes;

    /// <summary>Packs into memory that holds a whole <see cref="CpuQuantLinear"/>.</summary>
    public QuantPacker(CpuQuantLinear target)
    {
        _whole = new QuantLayout(target.Format, target.OutFeatures, target.InFeatures);
        _codes = (byte*)target.Codes;
        _groupScales = (byte*)target.GroupScales;
        _rowScales = (float*)target.RowScales;
        _padded = target.PaddedColumns;
        _blockBytes = target.BlockBytes;
    }

    /// <summary>Fills everything with codes that stand for zero, so that padding adds nothing.</summary>
    public void Clear(CpuQuantLinear target)
    {
        byte zero = target.Kind switch { QuantKind.Int4 => 0x88, QuantKind.Nf4 => 0x77, _ => 0 };
        for (int block = 0; block < target.Blocks; block++) new Span<byte>(_codes + (block * _blockBytes), checked((int)_blockBytes)).Fill(zero);
        long scales = target.ByteLength - (target.Blocks * _blockBytes);
        for (long at = 0; at < scales; at += 1 << 30) new Span<byte>(_groupScales + at, (int)Math.Min(1 << 30, scales - at)).Clear();
        if (_rowScales != null) new Span<float>(_rowScales, target.Blocks * BlockRows).Clear();
    }

    /// <summary>Packs the rows of one quantised tensor, which stand from row <paramref name="first"/> on.</summary>
    public void Pack(QuantizedTensor tensor, int first, int threads)
    {
        QuantizedBytes bytes = tensor.Bytes;
        int rows = tensor.Layout.Rows;
        float[]? expanded = null;
        if (tensor.Format == QuantFormat.Nf4) Nf4.ExpandScales(tensor, 0, expanded = new float[tensor.Layout.ScaleCount]);
        // Rows of one block of sixteen share cache lines, so a block is one thread's.
        int begin = first / BlockRows, end = (first + rows + BlockRows - 1) / BlockRows;
        Parallel.For(begin, end, new ParallelOptions { MaxDegreeOfParallelism = threads }, block =>
        {
            int from = Math.Max(first, block * BlockRows), to = Math.Min(first + rows, (block + 1) * BlockRows);
            for (int row = from; row < to; row++) PackRow(tensor.Layout, bytes, row - first, row, expanded);
        });
    }

    private void PackRow(QuantLayout layout, QuantizedBytes bytes, int source, int row, float[]? expanded)
    {
        byte* from = (byte*)bytes.Codes + ((long)source * layout.RowBytes);
        byte* to = _codes + (row / BlockRows * _blockBytes);
        int lane = row % BlockRows, columns = layout.Columns;
        switch (CpuQuantLinear.KindOf(layout.Format))
        {
            case QuantKind.Int8:
                to += 2 * lane;
                for (int k = 0; k + 1 < columns; k += 2) ((ushort*)to)[k / 2 * BlockRows] = *(ushort*)(from + k);
                if (columns % 2 != 0) to[(columns - 1) * BlockRows] = from[columns - 1];
                break;
            case QuantKind.Int4:
                PackNibbles(from, (uint*)to + lane, columns);
                break;
            case QuantKind.Float8:
                for (int k = 0; k < columns; k++) to[(k * BlockRows) + lane] = from[k];
                break;
            default:
                for (int k = 0; k < columns / 2; k++) to[(k * BlockRows) + lane] = (byte)((from[k] >> 4) | (from[k] << 4));
                break;
        }
        PackScales(layout, bytes, source, row, expanded);
    }

    // Eight columns k..k+7 in four bytes, column k + i below column k + 4 + i.
    private static void PackNibbles(byte* from, uint* to, int columns)
    {
        int k = 0;
        for (; k + 8 <= columns; k += 8) to[k / 8 * BlockRows] = Interleave(*(uint*)(from + (k / 2)));
        if (k == columns) return;
        uint last = 0x88888888;
        for (int i = 0; i < (columns - k) / 2; i++) last = (last & ~(0xFFu << (8 * i))) | ((uint)from[(k / 2) + i] << (8 * i));
        to[k / 8 * BlockRows] = Interleave(last);
    }

    private static uint Interleave(uint nibbles) => Spread(nibbles & 0xFFFF) | (Spread(nibbles >> 16) << 4);

    private static uint Spread(uint four)
    {
        four = (four | (four << 8)) & 0x00FF00FF;
        return (four | (four << 4)) & 0x0F0F0F0F;
    }

    private void PackScales(QuantLayout layout, QuantizedBytes bytes, int source, int row, float[]? expanded)
    {
        int count = layout.ScalesPerRow;
        long to = ((long)(row / BlockRows) * count * BlockRows) + (row % BlockRows);
        if (expanded is not null)
        {
            for (int g = 0; g < count; g++) ((float*)_groupScales)[to + (g * BlockRows)] = expanded[((long)source * count) + g];
        }
        else if (layout.ScaleType == DType.Float16)
        {
            for (int g = 0; g < count; g++) ((ushort*)_groupScales)[to + (g * BlockRows)] = ((ushort*)bytes.Scales)[((long)source * count) + g];
        }
        else
        {
            float scale = ((float*)bytes.Scales)[source];
            _rowScales[row] = _whole.Format == QuantFormat.Int8 ? scale / 127 : scale;
        }
    }
}
