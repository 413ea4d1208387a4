using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

public sealed partial class GpuBackend
{
    /// <inheritdoc/>
    public void GatherPatches(ImageBatch images, int patch, Tensor output, Workspace workspace)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(patch);
        Require(output.DType == _options.Type && output.Columns == 3 * patch * patch && output.Rows == images.Count * (images.Width / patch) * (images.Height / patch),
            "GatherPatches", output, output);
        using Workspace.Scope scope = workspace.Open();
        (Tensor pixels, Tensor table) = GpuScratch.Patches(workspace, images);
        if (output.Data == 0 || output.Rows == 0) return;
        if (images.Lut.Length != 768) throw new ArgumentException($"GatherPatches: the table has {images.Lut.Length} entries, not 768.");
        _stream.Enter();
        int pictureBytes = checked(images.Width * images.Height * 3);
        foreach (byte[] picture in images.Pixels)
        {
            if (picture.Length != pictureBytes) throw new ArgumentException($"GatherPatches: a picture of {images.Width} x {images.Height} has {picture.Length} bytes.");
        }
        using (CopyStream.Upload upload = _stream.Copies.Begin())
        {
            for (int i = 0; i < images.Count; i++) _transfer.Send(upload, pixels.Data + (i * (nint)pictureBytes), images.Pixels[i]);
            _transfer.Send(upload, table.Data, MemoryMarshal.AsBytes<float>(images.Lut));
        }
        Kernels.GatherPatches(pixels.Data, table.Data, output.Data, images.Count, images.Height, images.Width, patch);
    }

    /// <inheritdoc/>
    public void LayerNorm(Tensor input, NormWeight norm, Tensor output)
    {
        GpuNorm weights = LayerNormWeights(norm, "LayerNorm");
        RequireRows("LayerNorm", input, weights.Features, output, weights.Features);
        if (output.Data == 0 || output.Rows == 0) return;
        _stream.Enter();
        Kernels.LayerNorm(input.Data, weights, output.Data, input.Rows, input.Columns);
    }

    /// <inheritdoc/>
    public void DepthwiseConvNorm(Tensor input, Grid grid, DepthwiseWeight filter, NormWeight norm, Tensor output)
    {
        var taps = (GpuDepthwise)filter;
        GpuNorm weights = LayerNormWeights(norm, "DepthwiseConvNorm");
        RequireRows("DepthwiseConvNorm", input, taps.Channels, output, taps.Channels);
        Require(grid.Rows == input.Rows && weights.Features == taps.Channels, "DepthwiseConvNorm", input, output);
        if (output.Data == 0 || output.Rows == 0) return;
        _stream.Enter();
        Kernels.DepthwiseNorm(input.Data, grid, taps, weights, output.Data);
    }

    /// <inheritdoc/>
    public void NormGather(Tensor input, Grid grid, NormWeight norm, Tensor output)
    {
        GpuNorm weights = LayerNormWeights(norm, "NormGather");
        Grid half = grid.Downsampled(2);
        Require(input.DType == _options.Type && output.DType == _options.Type && input.Rows == grid.Rows && input.Columns == weights.Features
            && output.Rows == half.Rows && output.Columns == 4 * weights.Features, "NormGather", input, output);
        if (output.Data == 0 || half.Rows == 0) return;
        _stream.Enter();
        Kernels.NormGather(input.Data, grid, weights, output.Data);
    }

    /// <inheritdoc/>
    public void Linear(Tensor input, LinearWeight weight, Activation activation, Tensor output)
    {
        var linear = (GpuLinear)weight;
        RequireRows("Linear", input, linear.InFeatures, output, linear.OutFeatures);
        if (output.Data == 0 || output.Rows == 0) return;
        _stream.Enter();
        // cuBLASLt's GELU is the tanh form; the models use erf, so bias and activation follow in a kernel of our own.
        bool gelu = activation == Activation.Gelu;
        GemmKind kind = linear.HasBias && !gelu ? GemmKind.Bias : GemmKind.Plain;
        Gemms.Run(input.Data, linear.Weight, kind == GemmKind.Bias ? linear.StoredBias : 0, output.Data, input.Rows, linear.OutFeatures, linear.InFeatures, linear.Alpha, kind);
        if (gelu) Kernels.BiasGelu(output.Data, linear.Bias, output.Rows, output.Columns);
    }

    /// <inheritdoc/>
    public void LinearResidual(Tensor input, LinearWeight weight, Tensor accumulator)
    {
        var linear = (GpuLinear)weight;
        RequireRows("LinearResidual", input, linear.InFeatures, accumulator, linear.OutFeatures);
        if (accumulator.Data == 0 || accumulator.Rows == 0) return;
        _stream.Enter();
        if (!linear.HasBias && linear.Alpha == 1 && input.Rows <= Kernels.LargestGemv)
        {
            Kernels.Gemv(input.Data, null, linear, accumulator.Data, input.Rows, linear.InFeatures, linear.OutFeatures, GemvEpilogue.Add);
            return;
        }
        GemmKind kind = GemmKind.Accumulate | (linear.HasBias ? GemmKind.Bias : GemmKind.Plain);
        Gemms.Run(input.Data, linear.Weight, linear.StoredBias, accumulator.Data, input.Rows, linear.OutFeatures, linear.InFeatures, linear.Alpha, kind);
    }

    private static GpuNorm LayerNormWeights(NormWeight norm, string operation)
    {
        var weights = (GpuNorm)norm;
        return weights.Bias != 0 ? weights : throw new ArgumentException($"{operation} needs a LayerNorm; an RMSNorm was given.");
    }
}
