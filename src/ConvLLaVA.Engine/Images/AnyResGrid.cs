namespace ConvLLaVA.Engine.Images;

/// <summary>The two size rules of LLaVA's <c>anyres</c> mode (<c>select_best_resolution</c> and <c>resize_and_pad_image</c>).</summary>
internal static class AnyResGrid
{
    /// <summary>The grid that keeps most of the picture's pixels; of equals, the one that wastes least; of those, the first.</summary>
    public static (int Width, int Height) SelectBest(int width, int height, IReadOnlyList<(int Width, int Height)> candidates)
    {
        (int Width, int Height) best = candidates[0];
        long bestEffective = 0, leastWasted = long.MaxValue;
        foreach ((int Width, int Height) candidate in candidates)
        {
            double scale = Math.Min((double)candidate.Width / width, (double)candidate.Height / height);
            long effective = Math.Min((long)(width * scale) * (long)(height * scale), (long)width * height);
            long wasted = (long)candidate.Width * candidate.Height - effective;
            if (effective > bestEffective || (effective == bestEffective && wasted < leastWasted))
            {
                (best, bestEffective, leastWasted) = (candidate, effective, wasted);
            }
        }
        return best;
    }

    /// <summary>The picture's size inside a grid, its shape kept. The scale is rounded to double before it multiplies, as in the original.</summary>
    public static (int Width, int Height) Fit(int width, int height, int gridWidth, int gridHeight)
    {
        double scaleX = (double)gridWidth / width, scaleY = (double)gridHeight / height;
        return scaleX < scaleY
            ? (gridWidth, (int)Math.Min(Math.Ceiling(height * scaleX), gridHeight))
            : ((int)Math.Min(Math.Ceiling(width * scaleY), gridWidth), gridHeight);
    }
}
