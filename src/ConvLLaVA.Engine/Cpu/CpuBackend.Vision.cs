using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

public sealed unsafe partial class CpuBackend
{
    /// <summary>Rows of a task of row-wise operations: enough work to be worth handing out.</summary>
    private static int RowsPerTask(int columns) => Math.Clamp(16384 / Math.Max(columns, 1), 1, 256);

    /// <inheritdoc/>
    public void GatherPatches(ImageBatch images, int patch, Tensor output, Workspace workspace)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(patch);
        int across = images.Width / patch, down = images.Height / patch;
        Require(output.DType == DType.Float32 && output.Columns == 3 * patch * patch && output.Rows == images.Count * across * down,
            "GatherPatches", output, output);
        if (output.Data == 0 || output.Rows == 0) return;
        foreach (byte[] pixels in images.Pixels)
        {
            if (pixels.Length != (long)images.Width * images.Height * 3)
                throw new ArgumentException($"GatherPatches: a picture of {images.Width} x {images.Height} has {pixels.Length} bytes.");
        }
        if (images.Lut.Length != 768) throw new ArgumentException($"GatherPatches: the table has {images.Lut.Length} entries, not 768.");
        var work = new GatherPatchesWork(images, patch, output);
        _pool.Run(images.Count * down, 4, ref work);
    }

    // Items are lines of patches.
    private readonly struct GatherPatchesWork(ImageBatch images, int patch, Tensor output) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            int across = images.Width / patch, down = images.Height / patch;
            ReadOnlySpan<float> lut = images.Lut;
            float* to = (float*)output.Data + (nint)first * across * output.Columns;
            for (int line = first; line < end; line++)
            {
                ReadOnlySpan<byte> pixels = images.Pixels[line / down];
                int top = line % down * patch;
                for (int px = 0; px < across; px++)
                {
                    for (int c = 0; c < 3; c++)
                    {
                        ReadOnlySpan<float> values = lut.Slice(c * 256, 256);
                        for (int ky = 0; ky < patch; ky++)
                        {
                            int from = ((top + ky) * images.Width + px * patch) * 3 + c;
                            for (int kx = 0; kx < patch; kx++) *to++ = values[pixels[from + kx * 3]];
                        }
                    }
                }
            }
        }
    }

    /// <inheritdoc/>
    public void LayerNorm(Tensor input, NormWeight norm, Tensor output)
    {
        CpuNorm weights = LayerNormWeights(norm, "LayerNorm");
        RequireRows("LayerNorm", input, weights.Features, output, weights.Features);
        if (output.Data == 0) return;
        var work = new LayerNormWork(_kernels, input, weights, output);
        _pool.Run(input.Rows, RowsPerTask(input.Columns), ref work);
    }

    private readonly struct LayerNormWork(CpuKernels kernels, Tensor input, CpuNorm norm, Tensor output) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            nint columns = input.Columns;
            for (int row = first; row < end; row++)
            {
                kernels.LayerNorm((float*)input.Data + row * columns, input.Columns, (float*)norm.Weight, (float*)norm.Bias, norm.Epsilon,
                    (float*)output.Data + row * columns);
            }
        }
    }

    /// <inheritdoc/>
    public void DepthwiseConvNorm(Tensor input, Grid grid, DepthwiseWeight filter, NormWeight norm, Tensor output)
    {
        var taps = (CpuDepthwise)filter;
        CpuNorm weights = LayerNormWeights(norm, "DepthwiseConvNorm");
        int channels = taps.Channels;
        RequireRows("DepthwiseConvNorm", input, channels, output, channels);
        Require(grid.Rows == input.Rows && weights.Features == channels, "DepthwiseConvNorm", input, output);
        if (output.Data == 0) return;
        int height = grid.Height, width = grid.Width;
        int across = (width + _kernels.DepthwiseWidth - 1) / _kernels.DepthwiseWidth;
        int rows = _kernels.DepthwiseRows;
        // Tall tasks are faster, but a small map must still make tasks for all threads.
        while (Threads > 1 && rows > 1 && (long)grid.Images * across * ((height + rows - 1) / rows) < 3L * Threads) rows /= 2;
        int down = (height + rows - 1) / rows;
        var call = new DepthwiseCall(input.Data, height, width, channels, taps.Filter, taps.Bias, weights.Weight, weights.Bias, weights.Epsilon, output.Data);
        var work = new DepthwiseWork(_kernels, _scratch, call, rows, down, across);
        _pool.Run(grid.Images * down * across, 1, ref work);
    }

    // Items are pieces of a map, the call's of the first picture.
    private readonly struct DepthwiseWork(CpuKernels kernels, Scratch scratch, DepthwiseCall call, int rows, int down, int across) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            for (int item = first; item < end; item++)
            {
                int image = item / (down * across), y = item / across % down * rows, x = item % across * kernels.DepthwiseWidth;
                nint map = (nint)image * call.Height * call.Width * call.Channels * sizeof(float);
                kernels.DepthwiseSegment(call with { Map = call.Map + map, Output = call.Output + map }, y, Math.Min(rows, call.Height - y), x, scratch.Of(worker));
            }
        }
    }

    /// <inheritdoc/>
    public void NormGather(Tensor input, Grid grid, NormWeight norm, Tensor output)
    {
        CpuNorm weights = LayerNormWeights(norm, "NormGather");
        int channels = weights.Features;
        Grid half = grid.Downsampled(2);
        Require(input.DType == DType.Float32 && output.DType == DType.Float32 && input.Rows == grid.Rows && input.Columns == channels
            && output.Rows == half.Rows && output.Columns == 4 * channels, "NormGather", input, output);
        if (output.Data == 0 || half.Rows == 0) return;
        if (channels > MostGatheredChannels) throw new ArgumentException($"NormGather: {channels} channels are more than this backend handles.");
        var work = new NormGatherWork(_kernels, _scratch, input, grid, half, weights, output);
        _pool.Run(half.Images * half.Height, 1, ref work);
    }

    // Items are rows of cells.
    private readonly struct NormGatherWork(CpuKernels kernels, Scratch scratch, Tensor input, Grid grid, Grid half, CpuNorm norm, Tensor output) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            int channels = norm.Features;
            // Four normalised pixels side by side, then interleaved: (channel, ky, kx) order. [4, channels]
            float* pixels = scratch.Of(worker);
            float* to = (float*)output.Data + (nint)first * half.Width * output.Columns;
            for (int line = first; line < end; line++)
            {
                int image = line / half.Height, y = line % half.Height * 2;
                for (int x = 0; x < half.Width; x++, to += output.Columns)
                {
                    for (int k = 0; k < 4; k++)
                    {
                        float* from = (float*)input.Data + (((nint)image * grid.Height + y + k / 2) * grid.Width + 2 * x + k % 2) * channels;
                        kernels.LayerNorm(from, channels, (float*)norm.Weight, (float*)norm.Bias, norm.Epsilon, pixels + k * channels);
                    }
                    kernels.Interleave4(pixels, channels, to);
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Linear(Tensor input, LinearWeight weight, Activation activation, Tensor output)
    {
        RequireRows("Linear", input, weight.InFeatures, output, weight.OutFeatures);
        if (output.Data == 0) return;
        EpilogueKind kind = activation == Activation.Gelu ? EpilogueKind.Gelu : EpilogueKind.Store;
        Product(input, weight, kind, output);
    }

    /// <inheritdoc/>
    public void LinearResidual(Tensor input, LinearWeight weight, Tensor accumulator)
    {
        RequireRows("LinearResidual", input, weight.InFeatures, accumulator, weight.OutFeatures);
        if (accumulator.Data == 0) return;
        Product(input, weight, EpilogueKind.Accumulate, accumulator);
    }

    private void Product(Tensor input, LinearWeight weight, EpilogueKind kind, Tensor output)
        => Product(input.Data, input.Columns, input.Rows, weight, kind, output);

    // The rows of the input lie inputStride floats apart.
    private void Product(nint input, int inputStride, int rows, LinearWeight weight, EpilogueKind kind, Tensor output)
    {
        if (weight is CpuQuantLinear quantized) QuantizedProduct(input, inputStride, rows, quantized, kind, output.Data, output.Columns);
        else _kernels.Gemm(_pool, _scratch, new GemmCall(input, inputStride, rows, (CpuLinear)weight, kind, output.Data, output.Columns, _blocks));
    }

    private static CpuNorm LayerNormWeights(NormWeight norm, string operation)
    {
        var weights = (CpuNorm)norm;
        return weights.Bias != 0 ? weights : throw new ArgumentException($"{operation} needs a LayerNorm; an RMSNorm was given.");
    }
}
