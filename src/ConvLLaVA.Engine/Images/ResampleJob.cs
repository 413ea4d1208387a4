using System.Runtime.InteropServices;

namespace ConvLLaVA.Engine.Images;

/// <summary>A picture lying on a larger canvas of one colour. The canvas is never built: only its rows are, one at a time.</summary>
/// <param name="Image">The picture.</param>
/// <param name="Width">Columns of the canvas.</param>
/// <param name="Height">Rows of the canvas.</param>
/// <param name="X">Canvas column of the picture's first column.</param>
/// <param name="Y">Canvas row of the picture's first row.</param>
/// <param name="Red">Red of the canvas.</param>
/// <param name="Green">Green of the canvas.</param>
/// <param name="Blue">Blue of the canvas.</param>
internal readonly record struct ResampleSource(RgbImage Image, int Width, int Height, int X, int Y, byte Red, byte Green, byte Blue)
{
    /// <summary>The picture alone.</summary>
    public static ResampleSource Whole(RgbImage image) => new(image, image.Width, image.Height, 0, 0, 0, 0, 0);
}

/// <summary>The part of the resized canvas that is wanted.</summary>
/// <param name="FullWidth">Columns that the whole canvas is resized to.</param>
/// <param name="FullHeight">Rows that the whole canvas is resized to.</param>
/// <param name="X">First column wanted.</param>
/// <param name="Y">First row wanted.</param>
/// <param name="Width">Columns wanted.</param>
/// <param name="Height">Rows wanted.</param>
internal readonly record struct ResampleWindow(int FullWidth, int FullHeight, int X, int Y, int Width, int Height)
{
    /// <summary>Everything.</summary>
    public static ResampleWindow Whole(int width, int height) => new(width, height, 0, 0, width, height);
}

/// <summary>One resize. Each thread takes a band of output rows and keeps only the horizontally filtered rows that the next few output rows
/// need, so that they stay in its cache and a tall picture costs no memory of its own.</summary>
internal sealed unsafe class ResampleJob<TKernel> where TKernel : struct, IResampleKernel
{
    private const int RowsPerStep = 16;

    private readonly ResampleSource _source;
    private readonly ResampleWindow _window;
    private readonly AxisFilter? _allColumns;
    private readonly AxisFilter? _columns;
    private readonly int _left;
    private readonly int _right;
    private readonly AxisFilter? _rows;
    private readonly nint _stride;
    private readonly nint _slack;
    private readonly byte[] _result;
    private readonly byte[] _canvasRow;

    private ResampleJob(ResampleSource source, ResampleWindow window)
    {
        _source = source;
        _window = window;
        _right = window.Width;
        if (source.Width != window.FullWidth)
        {
            _allColumns = AxisFilter.Bicubic(source.Width, window.FullWidth, window.X, window.Width);
            // Columns left of _left and from _right on see the canvas alone: they are alike in every row.
            while (_left < _right && _allColumns.First[_left] + _allColumns.Count[_left] <= source.X) _left++;
            while (_right > _left && _allColumns.First[_right - 1] >= source.X + source.Image.Width) _right--;
            bool all = _left == 0 && _right == window.Width;
            _columns = all ? _allColumns : AxisFilter.Bicubic(source.Width, window.FullWidth, window.X + _left, _right - _left);
        }
        _rows = source.Height == window.FullHeight ? null : AxisFilter.Bicubic(source.Height, window.FullHeight, window.Y, window.Height);
        _stride = (3 * (nint)window.Width + 1 + 63) & ~(nint)63;
        _slack = 3 * (nint)(_allColumns?.Taps ?? 0) + 16;
        _result = GC.AllocateUninitializedArray<byte>(3 * window.Width * window.Height);
        _canvasRow = new byte[_stride];
    }

    /// <summary>Resizes; <paramref name="threads"/> 0 means one per processor.</summary>
    public static RgbImage Run(ResampleSource source, ResampleWindow window, int threads)
    {
        ResampleJob<TKernel> job = new(source, window);
        job.FilterCanvasRow();
        int bands = threads == 0 ? Environment.ProcessorCount : threads;
        bands = Math.Clamp(bands, 1, (window.Height + RowsPerStep - 1) / RowsPerStep);
        if (bands == 1) job.Band(0, window.Height);
        else
        {
            ParallelOptions options = new() { MaxDegreeOfParallelism = bands };
            Parallel.For(0, bands, options, band =>
                job.Band((int)((long)window.Height * band / bands), (int)((long)window.Height * (band + 1) / bands)));
        }
        return new RgbImage(window.Width, window.Height, job._result);
    }

    // All rows above and below the picture are the same row: it is filtered once, by the same code as every other. Columns beside the picture
    // are taken from it too.
    private void FilterCanvasRow()
    {
        if (_source.Height == _source.Image.Height && _source.Width == _source.Image.Width) return;
        byte* row = (byte*)NativeMemory.Alloc((nuint)(3 * (nint)_source.Width + _slack));
        try
        {
            Paint(row, 0, _source.Width);
            fixed (byte* target = _canvasRow)
            {
                byte** sources = stackalloc byte*[4] { row, row, row, row };
                byte** targets = stackalloc byte*[4] { target, target, target, target };
                if (_allColumns is not null) TKernel.Horizontal(sources, targets, _allColumns);
                else Horizontal(sources, targets);
            }
        }
        finally
        {
            NativeMemory.Free(row);
        }
    }

    private void Band(int from, int to)
    {
        int most = 0;
        for (int y = from; y < to; y += RowsPerStep)
        {
            (int first, int end) = Needed(y, Math.Min(to, y + RowsPerStep));
            most = Math.Max(most, end - first);
        }
        nint scratchRow = 3 * (nint)_source.Width + _slack;
        byte* kept = (byte*)NativeMemory.Alloc((nuint)((most + (_rows?.Taps ?? 0)) * _stride));
        byte* scratch = null;
        byte* output = null;
        try
        {
            scratch = (byte*)NativeMemory.Alloc((nuint)(4 * scratchRow));
            output = (byte*)NativeMemory.Alloc((nuint)_stride);
            for (int i = 0; i < 4; i++) Paint(scratch + i * scratchRow, 0, _source.Width);
            int keptFirst = 0, keptEnd = 0;
            for (int y = from; y < to; y += RowsPerStep)
            {
                int stepEnd = Math.Min(to, y + RowsPerStep);
                (int first, int end) = Needed(y, stepEnd);
                // Rows that this step shares with the last one move to the front.
                int shared = Math.Max(0, keptEnd - first);
                if (shared > 0) Buffer.MemoryCopy(kept + (first - keptFirst) * _stride, kept, shared * _stride, shared * _stride);
                FilterRows(first + shared, end, kept + shared * _stride, scratch, scratchRow);
                keptFirst = first;
                keptEnd = end;
                for (int row = y; row < stepEnd; row++) Emit(row, kept, keptFirst, output);
            }
        }
        finally
        {
            NativeMemory.Free(kept);
            NativeMemory.Free(scratch);
            NativeMemory.Free(output);
        }
    }

    /// <summary>Canvas rows that output rows <paramref name="from"/> … <paramref name="to"/> - 1 of the window read.</summary>
    private (int First, int End) Needed(int from, int to)
    {
        if (_rows is null) return (_window.Y + from, _window.Y + to);
        return (_rows.First[from], _rows.First[to - 1] + _rows.Count[to - 1]);
    }

    private void Emit(int row, byte* kept, int keptFirst, byte* output)
    {
        byte* ready;
        if (_rows is null) ready = kept + (_window.Y + row - keptFirst) * _stride;
        else
        {
            TKernel.Vertical(kept + (_rows.First[row] - keptFirst) * _stride, _stride, _rows, row, output);
            ready = output;
        }
        int bytes = 3 * _window.Width;
        new ReadOnlySpan<byte>(ready, bytes).CopyTo(_result.AsSpan(row * bytes, bytes));
    }

    private void FilterRows(int from, int to, byte* target, byte* scratch, nint scratchRow)
    {
        byte** sources = stackalloc byte*[4];
        byte** targets = stackalloc byte*[4];
        fixed (byte* pixels = _source.Image.Pixels)
        {
            int group = 0;
            for (int y = from; y < to; y++, target += _stride)
            {
                if (y < _source.Y || y >= _source.Y + _source.Image.Height)
                {
                    _canvasRow.AsSpan().CopyTo(new Span<byte>(target, (int)_stride));
                }
                else
                {
                    sources[group] = Row(y - _source.Y, pixels, scratch + group * scratchRow);
                    targets[group] = target;
                    group++;
                }
                if (group == 4 || (y == to - 1 && group > 0))
                {
                    // A short group repeats its last row: the same bytes are written again.
                    for (int i = group; i < 4; i++)
                    {
                        sources[i] = sources[group - 1];
                        targets[i] = targets[group - 1];
                    }
                    Horizontal(sources, targets);
                    group = 0;
                }
            }
        }
    }

    /// <summary>A canvas row through the picture: in place where nothing must be added, otherwise copied to the
    /// scratch row, which has the canvas on both sides.</summary>
    private byte* Row(int y, byte* pixels, byte* scratch)
    {
        nint bytes = 3 * (nint)_source.Image.Width;
        byte* row = pixels + y * bytes;
        if (_source.Width == _source.Image.Width && (y + 1) * bytes + _slack <= _source.Image.Pixels.Length) return row;
        Buffer.MemoryCopy(row, scratch + 3 * (nint)_source.X, bytes, bytes);
        return scratch;
    }

    private void Paint(byte* row, int from, int to)
    {
        for (int x = from; x < to; x++)
        {
            row[3 * (nint)x] = _source.Red;
            row[3 * (nint)x + 1] = _source.Green;
            row[3 * (nint)x + 2] = _source.Blue;
        }
    }

    private void Horizontal(byte** sources, byte** targets)
    {
        if (_columns is null)
        {
            nint bytes = 3 * (nint)_window.Width;
            for (int i = 0; i < 4; i++) Buffer.MemoryCopy(sources[i] + 3 * (nint)_window.X, targets[i], bytes, bytes);
            return;
        }
        byte** inner = stackalloc byte*[4];
        for (int i = 0; i < 4; i++) inner[i] = targets[i] + 3 * (nint)_left;
        TKernel.Horizontal(sources, inner, _columns);
        if (_left == 0 && _right == _window.Width) return;
        int before = 3 * _left, after = 3 * _right, end = 3 * _window.Width;
        for (int i = 0; i < 4; i++)
        {
            _canvasRow.AsSpan(0, before).CopyTo(new Span<byte>(targets[i], before));
            _canvasRow.AsSpan(after, end - after).CopyTo(new Span<byte>(targets[i] + after, end - after));
        }
    }
}
