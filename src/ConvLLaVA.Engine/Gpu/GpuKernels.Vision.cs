using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

internal sealed partial class GpuKernels
{
    private CudaFunction _gatherPatches = null!;
    private CudaFunction _layerNorm = null!;
    private CudaFunction _depthwiseNorm8 = null!;
    private CudaFunction _depthwiseNorm4 = null!;
    private CudaFunction _normGather = null!;
    private CudaFunction _gelu = null!;

    /// <summary>Normalises pictures and gathers their patches. pixels [n, H, W, 3] bytes, lut [3, 256], output [n * (H/p) * (W/p), p * p * 3].</summary>
    public void GatherPatches(nint pixels, nint lut, nint output, int images, int height, int width, int patch)
    {
        int rowLength = patch * patch * 3;
        long elements = (long)images * (height / patch) * (width / patch) * rowLength;
        int step = rowLength % _shape.Pack == 0 ? _shape.Pack : 1;
        var arguments = default(KernelArguments);
        arguments.Add(pixels);
        arguments.Add(lut);
        arguments.Add(output);
        arguments.Add(images);
        arguments.Add(height);
        arguments.Add(width);
        arguments.Add(patch);
        int grid = (int)Math.Min((elements / step + Threads - 1) / Threads, 64L * _multiprocessors);
        _stream.Launch(_gatherPatches, new Dim3(grid), new Dim3(Threads), 0, ref arguments, new Cost("gather_patches", (3L * images * height * width) + (elements * _elementBytes), 0));
    }

    /// <summary>LayerNorm of every row. [rows, columns]; output may be input.</summary>
    public void LayerNorm(nint input, GpuNorm norm, nint output, int rows, int columns)
    {
        var arguments = default(KernelArguments);
        arguments.Add(input);
        arguments.Add(norm.Weight);
        arguments.Add(norm.Bias);
        arguments.Add(output);
        arguments.Add(rows);
        arguments.Add(columns);
        arguments.Add(norm.Epsilon);
        _stream.Launch(_layerNorm, new Dim3(RowBlocks(rows, columns)), new Dim3(Threads), 0, ref arguments,
            new Cost("layer_norm", 2L * rows * columns * _elementBytes, 8L * rows * columns));
    }

    /// <summary>LayerNorm of every pixel, then each 2x2 cell gathered into one row. [n*H*W, C] to [n*(H/2)*(W/2), 4*C].</summary>
    public void NormGather(nint input, Grid grid, GpuNorm norm, nint output)
    {
        int channels = norm.Features;
        long pixels = 4L * grid.Downsampled(2).Rows;
        var arguments = default(KernelArguments);
        arguments.Add(input);
        arguments.Add(norm.Weight);
        arguments.Add(norm.Bias);
        arguments.Add(output);
        arguments.Add(grid.Images);
        arguments.Add(grid.Height);
        arguments.Add(grid.Width);
        arguments.Add(channels);
        arguments.Add(norm.Epsilon);
        _stream.Launch(_normGather, new Dim3(RowBlocks(pixels, channels)), new Dim3(Threads), 0, ref arguments,
            new Cost("norm_gather", 2 * pixels * channels * _elementBytes, 8 * pixels * channels));
    }

    /// <summary>7x7 depthwise convolution with bias, then LayerNorm. [n*H*W, C]; output is not input.</summary>
    public void DepthwiseNorm(nint input, Grid grid, GpuDepthwise filter, GpuNorm norm, nint output)
    {
        int channels = filter.Channels, groups = channels / _shape.Pack;
        if (groups * _shape.Pack != channels || groups > _shape.DepthwiseThreads)
            throw new ConvLlavaException($"The depthwise kernel takes channels in multiples of {_shape.Pack} up to {_shape.DepthwiseThreads * _shape.Pack}, not {channels}.");
        // Wide tiles and tall blocks read least, but a small map must still fill the device.
        int tile = 8, lines = grid.Images * grid.Height, strips = Math.Max(1, Math.Min(_shape.DepthwiseThreads / groups, lines));
        while (strips > 1 && DepthwiseBlocks(grid.Width, tile, lines, strips) < 2 * _multiprocessors) strips--;
        if (DepthwiseBlocks(grid.Width, tile, lines, strips) < 2 * _multiprocessors) tile = 4;
        int block = (strips * groups + 31) / 32 * 32;
        strips = block / groups; // the kernel divides its block the same way
        var arguments = default(KernelArguments);
        arguments.Add(input);
        arguments.Add(filter.Filter);
        arguments.Add(filter.Bias);
        arguments.Add(norm.Weight);
        arguments.Add(norm.Bias);
        arguments.Add(output);
        arguments.Add(grid.Images);
        arguments.Add(grid.Height);
        arguments.Add(grid.Width);
        arguments.Add(channels);
        arguments.Add(norm.Epsilon);
        long elements = (long)grid.Rows * channels;
        _stream.Launch(tile == 8 ? _depthwiseNorm8 : _depthwiseNorm4, new Dim3(Ceiling(grid.Width, tile), Ceiling(lines, strips)), new Dim3(block),
            sizeof(float) * tile * strips * (groups + 1), ref arguments,
            new Cost("depthwise_norm", (2 * elements * _elementBytes) + (49L * channels * _elementBytes), 98 * elements));
    }

    private static long DepthwiseBlocks(int width, int tile, int lines, int strips) => (long)Ceiling(width, tile) * Ceiling(lines, strips);

    /// <summary>y = gelu(y + bias) with the exact GELU, in place. [rows, columns]; bias may be zero for none.</summary>
    public void BiasGelu(nint y, nint bias, int rows, int columns)
    {
        int across = Ceiling(columns, columns % _shape.Pack == 0 ? Threads * _shape.Pack : Threads);
        int down = Math.Min(Math.Min(rows, 65535), Ceiling(16L * _multiprocessors, across));
        var arguments = default(KernelArguments);
        arguments.Add(y);
        arguments.Add(bias);
        arguments.Add(rows);
        arguments.Add(columns);
        _stream.Launch(_gelu, new Dim3(across, down), new Dim3(Threads), 0, ref arguments,
            new Cost("bias_gelu", 2L * rows * columns * _elementBytes, 25L * rows * columns));
    }

    /// <summary>One warp a row where a row fits a warp's registers, else one block.</summary>
    private int RowBlocks(long rows, int columns)
        => columns % _shape.Pack == 0 && columns <= 128 * _shape.Pack ? Ceiling(rows, Threads / 32) : checked((int)rows);

    private void LoadVision()
    {
        _gatherPatches = Function(_shape.Plain("gather_patches.cu"));
        _layerNorm = Function(_shape.Plain("layer_norm.cu"));
        _depthwiseNorm8 = Function(_shape.DepthwiseNorm(8), "depthwise_norm");
        _depthwiseNorm4 = Function(_shape.DepthwiseNorm(4), "depthwise_norm");
        _normGather = Function(_shape.Plain("norm_gather.cu"));
        _gelu = Function(_shape.Plain("bias_activation.cu", "ACTIVATION=1"));
    }
}
