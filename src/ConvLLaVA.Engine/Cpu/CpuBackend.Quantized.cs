using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

public sealed unsafe partial class CpuBackend
{
    private const int RowsWorthHandingOut = 8;
    private const int MostPanels = 8;

    private QuantKernels? _quantKernels;
    private NativeBlock? _quantInput;

    /// <summary>Binds quantised row blocks: packs their codes into memory of the backend and lets go of theirs.</summary>
    private LinearWeight BindQuantized(IReadOnlyList<WeightTensor> rowBlocks, WeightTensor? bias, WeightTensor? scale)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        QuantLayout first = rowBlocks[0].Quantized!.Layout;
        int rows = 0;
        foreach (WeightTensor block in rowBlocks)
        {
            RequireShape(block, block.Quantized is { } other && other.Format == first.Format && other.Layout.Columns == first.Columns,
                $"rows of {first.Columns} in {first.Format.Name()} as {rowBlocks[0].Name}");
            rows = checked(rows + block.Quantized!.Layout.Rows);
        }
        if (bias is not null) RequireShape(bias, bias.ElementCount == rows, $"[{rows}]");
        if (scale is not null) RequireShape(scale, scale.ElementCount == rows, $"[{rows}]");
        nint biases = bias is null ? 0 : CopyWidened(bias), scales = scale is null ? 0 : CopyWidened(scale);
        for (int i = 0; scales != 0 && biases != 0 && i < rows; i++) ((float*)biases)[i] *= ((float*)scales)[i];
        if (first.BlocksCrossRows) return Decoded(rowBlocks, rows, first.Columns, biases, scales);

        var whole = new QuantLayout(first.Format, rows, first.Columns);
        int padded = Simd.RoundUp(rows);
        var shape = new CpuQuantLinear(whole, 0, 0, 0, 0);
        bool hasRowScales = whole.ScaleType == DType.Float32;
        nint codes = Own(shape.Blocks * shape.BlockBytes);
        nint groupScales = hasRowScales ? 0 : Own((long)padded * whole.ScalesPerRow * (shape.Kind == QuantKind.Nf4 ? sizeof(float) : sizeof(ushort)));
        nint rowScales = hasRowScales || scales != 0 ? Own((long)padded * sizeof(float)) : 0;
        var linear = new CpuQuantLinear(whole, codes, groupScales, rowScales, biases);
        var packer = new QuantPacker(linear);
        packer.Clear(linear);
        int at = 0;
        foreach (WeightTensor block in rowBlocks)
        {
            packer.Pack(block.Quantized!, at, Threads);
            block.Quantized!.Release();
            at += block.Quantized.Layout.Rows;
        }
        for (int i = 0; scales != 0 && i < rows; i++) ((float*)rowScales)[i] = ((float*)scales)[i] * (hasRowScales ? ((float*)rowScales)[i] : 1);
        return linear;
    }

    /// <summary>A matrix of nf4 whose blocks run across rows, widened: no model that was published has one.</summary>
    private CpuLinear Decoded(IReadOnlyList<WeightTensor> rowBlocks, int rows, int columns, nint biases, nint scales)
    {
        nint data = Own((long)rows * columns * sizeof(float));
        int at = 0;
        foreach (WeightTensor block in rowBlocks)
        {
            for (int row = 0; row < block.Quantized!.Layout.Rows; row++, at++)
                QuantReference.DecodeRow(block.Quantized, row, new Span<float>((float*)data + ((long)at * columns), columns));
            block.Quantized.Release();
        }
        return new CpuLinear(columns, rows, DType.Float32, [new RowBlock(data, 0, rows)], biases, scales);
    }

    private void QuantizedProduct(nint input, int stride, int rows, CpuQuantLinear weight, EpilogueKind kind, nint output, int outputStride)
    {
        if (rows == 0) return;
        _quantKernels ??= QuantKernels.Create(Path);
        long bytes = QuantInput.ByteCount(weight, rows);
        if (_quantInput is null || _quantInput.ByteLength < bytes)
        {
            _quantInput?.Dispose();
            _quantInput = new NativeBlock(Memory, MemoryOwner.Workspace, bytes);
        }
        var prepared = new QuantInput(_quantInput.Data, weight, rows, input, stride);
        var call = new QuantCall(prepared, weight, kind, output, outputStride);
        if (prepared.NeedsPreparing)
        {
            var preparing = new PrepareWork(prepared);
            _pool.Run(rows, RowsWorthHandingOut, ref preparing);
        }
        var work = new QuantizedWork(_quantKernels, call);
        // Panels that follow each other are one stream of memory, but each thread must find several pieces.
        int panels = _quantKernels.Panels(weight), each = Math.Clamp(panels / (8 * Threads), 1, MostPanels);
        _pool.RunInShares(panels, each, ref work);
    }

    private readonly struct PrepareWork(QuantInput input) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            for (int row = first; row < end; row++) input.Prepare(row);
        }
    }

    private readonly struct QuantizedWork(QuantKernels kernels, QuantCall call) : IWork
    {
        public void Do(int first, int end, int worker) => kernels.Run(call, first, end);
    }
}
