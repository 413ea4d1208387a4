namespace ConvLLaVA.Engine.Text;

/// <summary>Puts the placeholders of images into the text of a user turn, and checks their number.</summary>
public static class ImagePrompt
{
    private const string Wrapped = "<im_start>" + LlamaTokenizer.ImagePlaceholder + "<im_end>";

    /// <summary>Gives a user's text its images: placeholders in the text stay where they are; a text without any gets all
    /// of them in front, each on a line of its own.</summary>
    /// <param name="text">The user's text.</param>
    /// <param name="images">Number of images that belong to this turn.</param>
    /// <param name="useImStartEnd"><c>mm_use_im_start_end</c>: each placeholder is put between <c>&lt;im_start&gt;</c> and
    /// <c>&lt;im_end&gt;</c>.</param>
    /// <exception cref="InvalidInputException">The text holds placeholders, but not as many as there are
    /// images.</exception>
    public static string Place(string text, int images, bool useImStartEnd = false)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentOutOfRangeException.ThrowIfNegative(images);
        int placeholders = Count(text);
        string mark = useImStartEnd ? Wrapped : LlamaTokenizer.ImagePlaceholder;
        if (placeholders == 0) return string.Concat(Enumerable.Repeat(mark + "\n", images)) + text;
        Check(text, images);
        return useImStartEnd ? text.Replace(Wrapped, LlamaTokenizer.ImagePlaceholder).Replace(LlamaTokenizer.ImagePlaceholder, Wrapped) : text;
    }

    /// <summary>Number of placeholders in a text or prompt.</summary>
    /// <param name="text">The text.</param>
    public static int Count(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return text.AsSpan().Count(LlamaTokenizer.ImagePlaceholder);
    }

    /// <summary>Checks that a text or prompt has one placeholder for each image.</summary>
    /// <param name="text">The text.</param>
    /// <param name="images">Number of images.</param>
    /// <exception cref="InvalidInputException">The numbers differ.</exception>
    public static void Check(string text, int images)
    {
        int placeholders = Count(text);
        if (placeholders == images) return;
        throw new InvalidInputException($"The text has {Number(placeholders, "<image> placeholder")}, but {Number(images, "image")} {(images == 1 ? "was" : "were")} given.");
    }

    private static string Number(int count, string what) => $"{count} {what}{(count == 1 ? "" : "s")}";
}
