namespace ConvLLaVA.Engine.Images;

/// <summary>What a picture may claim in its header before anything is decoded.</summary>
public sealed record ImageLimits
{
    /// <summary>Pillow's own decompression-bomb limit in pixels (<c>Image.MAX_IMAGE_PIXELS</c>, doubled, is where it refuses;
    /// the engine refuses at the first mark, where Pillow warns).</summary>
    public const long PillowMaxPixels = 178_956_970;

    /// <summary>The limits used where a caller gives none.</summary>
    public static ImageLimits Default { get; } = new();

    /// <summary>Most pixels (width times height); 0 or less means no limit.</summary>
    public long MaxPixels { get; init; } = PillowMaxPixels;

    /// <summary>Longest side in pixels; 0 or less means no limit. Padding makes a picture square, so a strip costs the square of its
    /// long side in the original, which fails there long before this mark.</summary>
    public int MaxSide { get; init; } = 65_535;

    /// <summary>Refuses a size that is empty, over the limits or larger than one array can hold.</summary>
    /// <param name="width">Columns from the header.</param>
    /// <param name="height">Rows from the header.</param>
    /// <param name="name">The name that the error message gives the picture.</param>
    /// <exception cref="InvalidInputException">The size is refused.</exception>
    internal void Check(long width, long height, string name)
    {
        if (width < 1 || height < 1)
        {
            throw new InvalidInputException($"Image '{name}': the header says {width}x{height} pixels, expected at least 1x1.");
        }
        if (MaxSide > 0 && Math.Max(width, height) > MaxSide)
        {
            throw new InvalidInputException($"Image '{name}': the header says {width}x{height} pixels, expected sides of at most {MaxSide} pixels.");
        }
        // The sides fit 32 bits in every format, so neither product overflows.
        if (MaxPixels > 0 && width * height > MaxPixels)
        {
            throw new InvalidInputException($"Image '{name}': the header says {width}x{height} pixels, expected at most {MaxPixels} pixels in all.");
        }
        if (width * height > Array.MaxLength / 4)
        {
            throw new InvalidInputException($"Image '{name}': the header says {width}x{height} pixels, expected at most {Array.MaxLength / 4} pixels that one buffer can hold.");
        }
    }
}
