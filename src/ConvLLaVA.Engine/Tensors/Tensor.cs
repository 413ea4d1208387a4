namespace ConvLLaVA.Engine.Tensors;

/// <summary>A row-major matrix view <c>[rows, columns]</c> of backend memory. Activations are channels-last everywhere, so
/// a feature map is <c>[n * h * w, channels]</c> and a sequence is <c>[tokens, hidden_size]</c>. A view owns nothing;
/// on a GPU backend <see cref="Data"/> is a device address.</summary>
/// <param name="Data">Address of the first element (zero while a forward pass is only being planned).</param>
/// <param name="DType">Element type.</param>
/// <param name="Rows">Number of rows.</param>
/// <param name="Columns">Number of columns; rows are contiguous.</param>
public readonly record struct Tensor(nint Data, DType DType, int Rows, int Columns)
{
    /// <summary>Bytes of the whole view.</summary>
    public long ByteLength => (long)Rows * Columns * DType.SizeInBytes();

    /// <summary>The view of rows <paramref name="start"/> .. <paramref name="start"/> + <paramref name="count"/> - 1.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The range leaves the view.</exception>
    public Tensor Slice(int start, int count)
    {
        if (start < 0 || count < 0 || start > Rows - count)
            throw new ArgumentOutOfRangeException(nameof(start), $"rows {start}..{(long)start + count} of a view with {Rows} rows");
        // While planning there is no memory: the address stays zero.
        nint data = Data == 0 ? 0 : Data + (nint)((long)start * Columns * DType.SizeInBytes());
        return this with { Data = data, Rows = count };
    }
}

/// <summary>What the rows of a feature map mean: <paramref name="Images"/> maps of <paramref name="Height"/> x
/// <paramref name="Width"/> pixels, row = (image * Height + y) * Width + x.</summary>
public readonly record struct Grid(int Images, int Height, int Width)
{
    /// <summary>Rows of the matrix that holds the maps.</summary>
    public int Rows => checked(Images * Height * Width);

    /// <summary>The grid after a stride-<paramref name="stride"/> convolution without padding (floors, as PyTorch does).</summary>
    public Grid Downsampled(int stride) => new(Images, Height / stride, Width / stride);
}
