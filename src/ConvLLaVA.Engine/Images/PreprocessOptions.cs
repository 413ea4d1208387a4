namespace ConvLLaVA.Engine.Images;

/// <summary>How a picture becomes the square that the vision tower sees (<c>image_aspect_ratio</c> of the checkpoint).</summary>
public enum AspectMode
{
    /// <summary>Any value but <c>pad</c> and <c>anyres</c>, or none: the shortest edge is resized and the centre is cropped, which loses borders.</summary>
    Default,

    /// <summary><c>pad</c>, as published: padded to a square with the mean colour, then resized.</summary>
    Pad,

    /// <summary><c>anyres</c>: the whole picture squeezed into one square, then the tiles of the best fitting grid.</summary>
    AnyRes,
}

/// <summary>The image processor's settings as plain values (the fields of <c>preprocessor_config.json</c>, and <c>image_aspect_ratio</c> and
/// <c>image_grid_pinpoints</c> of <c>config.json</c>).</summary>
public sealed record PreprocessOptions
{
    /// <summary>Side S in pixels of the square that the vision tower gets (<c>crop_size</c>).</summary>
    public required int CropSize { get; init; }

    /// <summary>Pixels that the shortest edge is resized to (<c>size.shortest_edge</c>); null means <see cref="CropSize"/>.</summary>
    public int? ShortestEdge { get; init; }

    /// <summary>Mean per channel, red first, in units of full scale (<c>image_mean</c>); it also gives the padding colour.</summary>
    public IReadOnlyList<double> Mean { get; init; } = [0.48145466, 0.4578275, 0.40821073];

    /// <summary>Standard deviation per channel, red first, in units of full scale (<c>image_std</c>).</summary>
    public IReadOnlyList<double> Std { get; init; } = [0.26862954, 0.26130258, 0.27577711];

    /// <summary>Factor from 8-bit samples to full scale (<c>rescale_factor</c>).</summary>
    public double RescaleFactor { get; init; } = 0.00392156862745098;

    /// <summary>How the picture becomes square.</summary>
    public AspectMode Aspect { get; init; } = AspectMode.Pad;

    /// <summary>Grid sizes in pixels, width first (<c>image_grid_pinpoints</c>); needed for <see cref="AspectMode.AnyRes"/> alone.</summary>
    public IReadOnlyList<(int Width, int Height)> GridPinpoints { get; init; } = [];

    /// <summary><c>do_resize</c>.</summary>
    public bool DoResize { get; init; } = true;

    /// <summary><c>do_center_crop</c>.</summary>
    public bool DoCenterCrop { get; init; } = true;

    /// <summary><c>do_rescale</c>.</summary>
    public bool DoRescale { get; init; } = true;

    /// <summary><c>do_normalize</c>.</summary>
    public bool DoNormalize { get; init; } = true;

    /// <summary>Refuses settings that no picture could be prepared with.</summary>
    /// <exception cref="InvalidInputException">A value is out of range.</exception>
    internal void Check()
    {
        if (CropSize < 1) throw new InvalidInputException($"Image processor: crop_size is {CropSize}, expected at least 1.");
        if (ShortestEdge is < 1) throw new InvalidInputException($"Image processor: size.shortest_edge is {ShortestEdge}, expected at least 1.");
        if (Mean.Count != 3) throw new InvalidInputException($"Image processor: image_mean has {Mean.Count} values, expected 3.");
        if (Std.Count != 3) throw new InvalidInputException($"Image processor: image_std has {Std.Count} values, expected 3.");
        foreach (double mean in Mean)
        {
            if (!(mean is >= 0 and <= 1)) throw new InvalidInputException($"Image processor: image_mean has the value {mean}, expected values from 0 to 1.");
        }
        foreach (double std in Std)
        {
            if (!(std > 0 && double.IsFinite(std))) throw new InvalidInputException($"Image processor: image_std has the value {std}, expected values above 0.");
        }
        if (!double.IsFinite(RescaleFactor)) throw new InvalidInputException($"Image processor: rescale_factor is {RescaleFactor}, expected a finite number.");
        if (Aspect == AspectMode.AnyRes && GridPinpoints.Count == 0)
        {
            throw new InvalidInputException("Image processor: image_grid_pinpoints is empty, expected at least one width and height for anyres.");
        }
        foreach ((int width, int height) in GridPinpoints)
        {
            if (width < 1 || height < 1 || (long)width * height > Array.MaxLength / 4)
            {
                throw new InvalidInputException($"Image processor: image_grid_pinpoints has {width}x{height}, expected sides of at least 1 and at most {Array.MaxLength / 4} pixels in all.");
            }
        }
    }
}
