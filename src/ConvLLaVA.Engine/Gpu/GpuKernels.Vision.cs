using ConvLLaVA.Cuda;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

internal sealed partial class GpuKernels
{
    private CudaFunction _gatherPatches = null!;
    private CudaFunction _layerNorm = null!;
    private readonly Dictionary<int, CudaFunction> _depthwiseNorm = [];
    private CudaFunction _depthwiseNormAny = null!;
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
        int channels = filter.Channels, groups = channels % _shape.Pack == 0 ? channels / _shape.Pack : int.MaxValue, lines = grid.Images * grid.Height;
        (int tile, int strips) = DepthwiseTile(groups, grid.Width, lines);
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
        var cost = new Cost("depthwise_norm", (2 * elements * _elementBytes) + (49L * channels * _elementBytes), 98 * elements);
        if (tile == 0)
        {
            _stream.Launch(_depthwiseNormAny, new Dim3(grid.Rows), new Dim3(Threads), sizeof(float) * channels, ref arguments, cost);
            return;
        }
        int block = (strips * groups + 31) / 32 * 32;
        strips = block / groups; // the kernel divides its block the same way
        _stream.Launch(_depthwiseNorm[tile], new Dim3(Ceiling(grid.Width, tile), Ceiling(lines, strips)), new Dim3(block), sizeof(float) * tile * (block + strips), ref arguments, cost);
    }

    /// <summary>Wide tiles and tall blocks read least, but a small map must still fill the device: the widest tile, and then the tallest
    /// block, that leaves two blocks a multiprocessor, else the smallest of both. Tile 0 is the kernel for any number of channels.</summary>
    private (int Tile, int Strips) DepthwiseTile(int groups, int width, int lines)
    {
        (int Tile, int Strips) smallest = default;
        foreach (int tile in KernelShape.DepthwiseTiles)
        {
            if (groups > KernelShape.DepthwiseThreads) continue;
            int strips = Math.Min(KernelShape.DepthwiseThreads / groups, lines);
            while (strips > 1 && strips * groups > 32 && (long)Ceiling(width, tile) * Ceiling(lines, strips) < 2 * _multiprocessors) strips--;
            smallest = (tile, strips);
            if ((long)Ceiling(width, tile) * Ceiling(lines, strips) >= 2 * _multiprocessors) break;
        }
        return smallest;
    }

    /// <summary>Flops of a value's bias and exact GELU, a multiply-add counted as two; the head of <c>bias_activation.cu</c> lists them.</summary>
    internal const int GeluFlops = 22;

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
            new Cost("bias_gelu", 2L * rows * columns * _elementBytes, (long)GeluFlops * rows * columns));
    }

    /// <summary>One warp a row where a row fits a warp's registers, else one block.</summary>
    private int RowBlocks(long rows, int columns)
        => columns % _shape.Pack == 0 && columns <= 128 * _shape.Pack ? Ceiling(rows, Threads / 32) : checked((int)rows);

    private void LoadVision()
    {
        _gatherPatches = Function(_shape.Plain("gather_patches.cu"));
        _layerNorm = Function(_shape.Plain("layer_norm.cu"));
        foreach (int tile in KernelShape.DepthwiseTiles) _depthwiseNorm.Add(tile, Function(_shape.DepthwiseNorm(tile)));
        _depthwiseNormAny = Function(_shape.Plain("depthwise_norm_any.cu"));
        _normGather = Function(_shape.Plain("norm_gather.cu"));
        _gelu = Function(_shape.Plain("bias_activation.cu", "ACTIVATION=1"));
    }
}
