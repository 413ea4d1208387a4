namespace ConvLLaVA.Engine.Images;

/// <summary>Prepares pictures as ConvLLaVA does before its vision tower (<c>process_images</c> of the original on top of
/// <c>CLIPImageProcessor</c>), byte for byte up to the normalised values.</summary>
public sealed class ImagePreprocessor
{
    private readonly PreprocessOptions _options;
    private readonly int _threads;

    /// <summary>Creates a preprocessor.</summary>
    /// <param name="options">The settings.</param>
    /// <param name="threads">Threads per picture; 0 means one per processor. The result does not depend on it.</param>
    /// <exception cref="InvalidInputException">A setting is out of range.</exception>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="threads"/> is negative.</exception>
    public ImagePreprocessor(PreprocessOptions options, int threads = 0)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentOutOfRangeException.ThrowIfNegative(threads);
        options.Check();
        _options = options;
        _threads = threads;
        Normalization = new NormalizationTable(options);
    }

    /// <summary>Side S in pixels of every tile.</summary>
    public int Size => _options.CropSize;

    /// <summary>The table that turns a tile's samples into the vision tower's values.</summary>
    public NormalizationTable Normalization { get; }

    /// <summary>The colour that padding has, red first: the mean times 255, cut to an integer ((122, 116, 104) as published).</summary>
    public (byte Red, byte Green, byte Blue) PadColor =>
        ((byte)(_options.Mean[0] * 255), (byte)(_options.Mean[1] * 255), (byte)(_options.Mean[2] * 255));

    /// <summary>Makes a picture into tiles of S×S pixels.</summary>
    /// <param name="image">The picture.</param>
    /// <param name="name">The name that an error message gives the picture.</param>
    /// <exception cref="InvalidInputException">The settings switch off so much that the result is not S×S.</exception>
    public PreparedImage Prepare(RgbImage image, string name = "image")
    {
        ArgumentNullException.ThrowIfNull(image);
        if (_options.Aspect == AspectMode.AnyRes) return PrepareTiles(image, name);
        ResampleSource source = _options.Aspect == AspectMode.Pad ? Padded(image) : ResampleSource.Whole(image);
        return new PreparedImage([Process(source, name)], image.Width, image.Height, 0, 0);
    }

    private ResampleSource Padded(RgbImage image)
    {
        int side = Math.Max(image.Width, image.Height);
        (byte red, byte green, byte blue) = PadColor;
        return new ResampleSource(image, side, side, (side - image.Width) / 2, (side - image.Height) / 2, red, green, blue);
    }

    /// <summary><c>CLIPImageProcessor.preprocess</c> up to the 8-bit samples: resize the shortest edge, then crop the centre. Only the part
    /// that the crop keeps is computed.</summary>
    private RgbImage Process(ResampleSource source, string name)
    {
        long fullWidth = source.Width, fullHeight = source.Height;
        if (_options.DoResize)
        {
            long edge = _options.ShortestEdge ?? _options.CropSize;
            long longer = (long)((double)(edge * Math.Max(fullWidth, fullHeight)) / Math.Min(fullWidth, fullHeight));
            (fullWidth, fullHeight) = fullWidth <= fullHeight ? (edge, longer) : (longer, edge);
        }
        int size = _options.CropSize;
        if (!_options.DoCenterCrop && (fullWidth != size || fullHeight != size))
        {
            throw new InvalidInputException($"Image '{name}': found {fullWidth}x{fullHeight} pixels without do_center_crop, expected {size}x{size}.");
        }
        if (fullWidth > int.MaxValue || fullHeight > int.MaxValue)
        {
            throw new InvalidInputException($"Image '{name}': {source.Width}x{source.Height} pixels would be resized to {fullWidth}x{fullHeight}, expected sides below 2^31.");
        }
        (int x, int width, int left) = Crop((int)fullWidth, size);
        (int y, int height, int top) = Crop((int)fullHeight, size);
        RgbImage kept = Resample(source, new ResampleWindow((int)fullWidth, (int)fullHeight, x, y, width, height));
        return width == size && height == size ? kept : OnBlack(kept, size, size, left, top);
    }

    private RgbImage Resample(ResampleSource source, ResampleWindow window)
    {
        bool untouched = source == ResampleSource.Whole(source.Image) && window == ResampleWindow.Whole(source.Image.Width, source.Image.Height);
        return untouched ? source.Image : PillowResampler.Resample(source, window, _threads, ResamplePath.Auto);
    }

    /// <summary>The centre crop of one axis as <c>transformers.image_transforms.center_crop</c> has it: where the picture is shorter than the
    /// crop, it lies on zeros, and the odd pixel goes to the side that the two roundings there give.</summary>
    /// <returns>First pixel kept, pixels kept, and zeros before them.</returns>
    private static (int First, int Length, int Before) Crop(int available, int wanted)
    {
        if (available >= wanted) return ((available - wanted) / 2, wanted, 0);
        // new = max(wanted, available); pad = ceil((new - available) / 2); start = floor((available - wanted) / 2) + pad = 0.
        return (0, available, (wanted - available + 1) / 2);
    }

    private PreparedImage PrepareTiles(RgbImage image, string name)
    {
        (int width, int height) = AnyResGrid.SelectBest(image.Width, image.Height, _options.GridPinpoints);
        (int newWidth, int newHeight) = AnyResGrid.Fit(image.Width, image.Height, width, height);
        RgbImage fitted = PillowResampler.ResizeBicubic(image, newWidth, newHeight, _threads);
        RgbImage canvas = newWidth == width && newHeight == height
            ? fitted
            : OnBlack(fitted, width, height, (width - newWidth) / 2, (height - newHeight) / 2);
        int edge = _options.ShortestEdge ?? _options.CropSize, size = _options.CropSize;
        List<RgbImage> tiles = [Process(ResampleSource.Whole(PillowResampler.ResizeBicubic(image, edge, edge, _threads)), name)];
        int columns = (width + size - 1) / size, rows = (height + size - 1) / size;
        for (int row = 0; row < rows; row++)
        {
            for (int column = 0; column < columns; column++)
            {
                // PIL's crop gives zeros beyond the edge, where the grid is no multiple of the tile.
                RgbImage tile = OnBlack(canvas, size, size, -column * size, -row * size);
                tiles.Add(Process(ResampleSource.Whole(tile), name));
            }
        }
        return new PreparedImage(tiles, image.Width, image.Height, columns, rows);
    }

    /// <summary>The part of a picture that falls on a black canvas, when its first pixel lies at (<paramref name="left"/>, <paramref name="top"/>).</summary>
    private static RgbImage OnBlack(RgbImage image, int width, int height, int left, int top)
    {
        byte[] pixels = new byte[checked(3 * width * height)];
        int from = Math.Max(0, left), to = Math.Min(width, left + image.Width);
        for (int y = Math.Max(0, top); y < Math.Min(height, top + image.Height); y++)
        {
            image.Pixels.AsSpan(3 * ((y - top) * image.Width + from - left), 3 * (to - from)).CopyTo(pixels.AsSpan(3 * (y * width + from)));
        }
        return new RgbImage(width, height, pixels);
    }
}
