namespace ConvLLaVA.Engine.Cpu;

/// <summary>How a matrix product is cut so that what is used again is still in a cache. The length of a partial sum is no part of
/// this: results would differ between machines.</summary>
/// <param name="Columns">Weight rows, output columns, that are widened at a time.</param>
/// <param name="Rows">Input rows that pass by widened weights.</param>
/// <param name="Wide">Rows of the encoder's widest tensor that exist at a time, in floats.</param>
internal readonly record struct GemmBlocks(int Columns, int Rows, long Wide)
{
    /// <summary>Length of a partial sum: 6 rows of input and 4 of weights of this length, 30 KiB, stay in the smallest first-level
    /// cache there is.</summary>
    public const int KBlock = 768;

    private const int Step = 48;

    /// <summary>The sizes for this machine.</summary>
    public static GemmBlocks Current { get; } = Of(CpuCaches.Current);

    /// <summary>The sizes for a processor.</summary>
    public static GemmBlocks Of(CpuCaches caches)
    {
        // Widened weights fill up to 3/5 of the second-level cache: input, sums and the next weights pass by them.
        long columns = caches.Level2 * 3 / 5 / (KBlock * sizeof(float)) / Step * Step;
        // Weights are read from memory and widened once for so many rows, whose sums must wait in memory near by.
        long rows = caches.Level3 / 8 / (KBlock * sizeof(float)) / Step * Step;
        return new GemmBlocks((int)Math.Clamp(columns, Step, 384), (int)Math.Clamp(rows, 192, 768), caches.Level3 / 4 / sizeof(float));
    }

    /// <summary>The cut of a product: rows and columns of a task. Smaller ones for small products, so that no worker is left without; more
    /// columns are given up first, since every group of rows widens the weights anew.</summary>
    public (int Rows, int Columns) Tasks(int rows, int columns, int threads)
    {
        int m = EqualParts(rows, Rows), n = Math.Min(Columns, columns);
        long enough = threads > 1 ? 3L * threads : 1;
        while (n > 2 * Step && Count(m, n) < enough) n = Halved(n);
        while (m > 2 * Step && Count(m, n) < enough) m = EqualParts(m, (m + 1) / 2);
        while (n > Step && Count(m, n) < enough) n = Halved(n);
        return (m, n);

        long Count(int m, int n) => (rows + m - 1) / m * (long)((columns + n - 1) / n);
    }

    private static int Halved(int columns) => ((columns / 2) + 3) & ~3;

    // Parts of at most so many rows, whole register tiles but for the last.
    private static int EqualParts(int rows, int most)
    {
        int parts = (rows + most - 1) / most;
        return ((((rows + parts - 1) / parts) + 5) / 6) * 6;
    }
}
