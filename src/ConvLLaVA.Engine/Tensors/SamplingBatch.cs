namespace ConvLLaVA.Engine.Tensors;

/// <summary>How the next tokens of a step are chosen, a row for each of the step's first <see cref="Rows"/> logit rows, and what was
/// chosen. What is drawn is defined in integers (see <c>kernels/sample.cu</c>), so that every device draws the same token from the same
/// logits. Arrays may be longer than what is in use; they grow and stay.</summary>
public sealed class SamplingBatch
{
    /// <summary>Most likeliest tokens that a row can ask for.</summary>
    public const int MostLikeliest = 20;

    /// <summary>Rows in use.</summary>
    public int Rows { get; private set; }

    /// <summary>0 takes the likeliest token; above, logits are divided by it and a token is drawn. [rows]</summary>
    public float[] Temperatures { get; private set; } = [];

    /// <summary>Tokens to draw from, 0 for all. [rows]</summary>
    public int[] TopK { get; private set; } = [];

    /// <summary>Probability of the tokens to draw from. [rows]</summary>
    public float[] TopP { get; private set; } = [];

    /// <summary>Least probability, as a share of the likeliest token's. [rows]</summary>
    public float[] MinP { get; private set; } = [];

    /// <summary>Divides positive and multiplies negative logits of counted tokens. [rows]</summary>
    public float[] RepetitionPenalties { get; private set; } = [];

    /// <summary>Taken off counted tokens. [rows]</summary>
    public float[] PresencePenalties { get; private set; } = [];

    /// <summary>Taken off counted tokens, times their count. [rows]</summary>
    public float[] FrequencyPenalties { get; private set; } = [];

    /// <summary>Seeds of the random numbers. [rows]</summary>
    public ulong[] Seeds { get; private set; } = [];

    /// <summary>Numbers drawn with the seed before. [rows]</summary>
    public ulong[] Draws { get; private set; } = [];

    /// <summary>Row length of <see cref="CountedIds"/> and <see cref="Counts"/>; 0 when no row has penalties to apply.</summary>
    public int MaxCounted { get; private set; }

    /// <summary>Tokens that penalties apply to, 0 where there are none. [rows]</summary>
    public int[] Counted { get; private set; } = [];

    /// <summary>Their ids, different within a row. [rows, MaxCounted]</summary>
    public int[] CountedIds { get; private set; } = [];

    /// <summary>How often each was generated. [rows, MaxCounted]</summary>
    public int[] Counts { get; private set; } = [];

    /// <summary>True when some row wants log-probabilities.</summary>
    public bool WantsLogProbs { get; private set; }

    /// <summary>Row length of <see cref="LikeliestIds"/> and <see cref="LikeliestLogProbs"/>.</summary>
    public int MaxWanted { get; private set; }

    /// <summary>How many of the likeliest tokens' log-probabilities are wanted besides the chosen one's; negative for none at all. [rows]</summary>
    public int[] Wanted { get; private set; } = [];

    /// <summary>Result: the chosen tokens, -1 where the logits are no numbers. [rows]</summary>
    public int[] Tokens { get; private set; } = [];

    /// <summary>Result: their log-probabilities under the unchanged logits, where wanted. [rows]</summary>
    public float[] LogProbs { get; private set; } = [];

    /// <summary>Result: the likeliest tokens, best first, where wanted. [rows, MaxWanted]</summary>
    public int[] LikeliestIds { get; private set; } = [];

    /// <summary>Result: their log-probabilities. [rows, MaxWanted]</summary>
    public float[] LikeliestLogProbs { get; private set; } = [];

    /// <summary>Makes room for <paramref name="rows"/> rows, whose values the caller then writes.</summary>
    /// <param name="rows">Rows.</param>
    /// <param name="maxCounted">Most tokens of a row that penalties apply to.</param>
    /// <param name="maxWanted">Most likeliest tokens that a row wants, or negative when none wants log-probabilities.</param>
    public void Reset(int rows, int maxCounted, int maxWanted)
    {
        Rows = rows;
        MaxCounted = maxCounted;
        MaxWanted = Math.Max(0, maxWanted);
        WantsLogProbs = maxWanted >= 0;
        Temperatures = Grown(Temperatures, rows);
        TopK = Grown(TopK, rows);
        TopP = Grown(TopP, rows);
        MinP = Grown(MinP, rows);
        RepetitionPenalties = Grown(RepetitionPenalties, rows);
        PresencePenalties = Grown(PresencePenalties, rows);
        FrequencyPenalties = Grown(FrequencyPenalties, rows);
        Seeds = Grown(Seeds, rows);
        Draws = Grown(Draws, rows);
        Counted = Grown(Counted, rows);
        CountedIds = Grown(CountedIds, rows * maxCounted);
        Counts = Grown(Counts, rows * maxCounted);
        Wanted = Grown(Wanted, rows);
        Tokens = Grown(Tokens, rows);
        LogProbs = Grown(LogProbs, rows);
        LikeliestIds = Grown(LikeliestIds, rows * MaxWanted);
        LikeliestLogProbs = Grown(LikeliestLogProbs, rows * MaxWanted);
    }

    private static T[] Grown<T>(T[] array, int length) => array.Length >= length ? array : new T[Math.Max(length, array.Length * 2)];
}
