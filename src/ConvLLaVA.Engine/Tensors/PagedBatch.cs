namespace ConvLLaVA.Engine.Tensors;

/// <summary>How the tokens of one step lie in the KV pages. A step mixes sequences freely: some process a piece of their
/// prompt (several tokens), others decode (one token). All tokens of a step form one matrix, sequence after sequence.
/// Arrays may be longer than what is in use; the counts decide.</summary>
public sealed class PagedBatch
{
    /// <summary>Tokens in the step.</summary>
    public int TokenCount { get; set; }

    /// <summary>Sequences in the step.</summary>
    public int SequenceCount { get; set; }

    /// <summary>Tokens a KV page holds.</summary>
    public int BlockSize { get; set; } = 16;

    /// <summary>Row length of <see cref="BlockTables"/>.</summary>
    public int MaxBlocks { get; set; }

    /// <summary>Ids of the tokens; -1 - r for row r of the sequence's image features. [tokens]</summary>
    public int[] TokenIds { get; set; } = [];

    /// <summary>Position of each token in its sequence, for RoPE and the causal mask. [tokens]</summary>
    public int[] Positions { get; set; } = [];

    /// <summary>Where each token's key and value go: block * BlockSize + offset. [tokens]</summary>
    public int[] Slots { get; set; } = [];

    /// <summary>First row of each sequence, and at the end the token count. [sequences + 1]</summary>
    public int[] QueryStarts { get; set; } = [];

    /// <summary>Tokens of each sequence in the cache once this step has written its own. [sequences]</summary>
    public int[] ContextLengths { get; set; } = [];

    /// <summary>Block numbers of each sequence in order. [sequences, MaxBlocks]</summary>
    public int[] BlockTables { get; set; } = [];

    /// <summary>Rows whose logits are wanted. [outputs]</summary>
    public int[] LogitRows { get; set; } = [];

    /// <summary>Number of <see cref="LogitRows"/> in use.</summary>
    public int LogitCount { get; set; }

    /// <summary>How tokens are chosen from the first of <see cref="LogitRows"/>; without rows when nobody wants any.</summary>
    public SamplingBatch Sampling { get; } = new();

    /// <summary>True when every sequence decodes: one token each, none of them an image row, the logits of all wanted.</summary>
    public bool IsDecode
    {
        get
        {
            if (TokenCount != SequenceCount || LogitCount != TokenCount) return false;
            for (int t = 0; t < TokenCount; t++)
            {
                if (TokenIds[t] < 0) return false;
            }
            return true;
        }
    }

    /// <summary>Appends sequences of one token that nobody reads until the step has <paramref name="rows"/> rows. They lie in page 0,
    /// which belongs to nobody.</summary>
    /// <exception cref="InvalidOperationException">The step does not only decode.</exception>
    public void PadDecode(int rows)
    {
        if (rows == TokenCount) return;
        if (!IsDecode) throw new InvalidOperationException("Only a step that decodes can be padded.");
        TokenIds = Grown(TokenIds, rows);
        Positions = Grown(Positions, rows);
        Slots = Grown(Slots, rows);
        QueryStarts = Grown(QueryStarts, rows + 1);
        ContextLengths = Grown(ContextLengths, rows);
        LogitRows = Grown(LogitRows, rows);
        BlockTables = Grown(BlockTables, rows * MaxBlocks);
        for (int row = TokenCount; row < rows; row++)
        {
            TokenIds[row] = Positions[row] = Slots[row] = 0;
            QueryStarts[row] = LogitRows[row] = row;
            ContextLengths[row] = 1;
            Array.Clear(BlockTables, row * MaxBlocks, MaxBlocks);
        }
        QueryStarts[rows] = rows;
        TokenCount = SequenceCount = LogitCount = rows;
    }

    /// <summary>Refuses a batch that would read or write outside the pages. A wrong slot or page number would write over another
    /// sequence, so they are looked at every time; that is a few integers a token.</summary>
    /// <param name="operation">Name for the message.</param>
    /// <param name="rows">Rows of the step's matrices.</param>
    /// <param name="layout">Shape of the pages.</param>
    /// <exception cref="ArgumentException">The batch does not fit the rows or the pages.</exception>
    public void Check(string operation, int rows, KvLayout layout)
    {
        if (layout.BlockSize != BlockSize) throw new ArgumentException($"{operation}: the pages ({layout}) do not hold blocks of {BlockSize}.");
        if (TokenCount != rows || Positions.Length < rows || Slots.Length < rows)
            throw new ArgumentException($"{operation}: the batch has {TokenCount} tokens and the matrix {rows} rows.");
        if (QueryStarts.Length <= SequenceCount || QueryStarts[SequenceCount] != rows || BlockTables.Length < (long)SequenceCount * MaxBlocks)
            throw new ArgumentException($"{operation}: the batch's {SequenceCount} sequences do not cover {rows} rows.");
        for (int t = 0; t < rows; t++)
        {
            if ((uint)Slots[t] >= (uint)(layout.Blocks * layout.BlockSize) || Positions[t] < 0)
            {
                throw new ArgumentException($"{operation}: token {t} at position {Positions[t]} has slot {Slots[t]} "
                    + $"of {layout.Blocks * layout.BlockSize}.");
            }
        }
        for (int s = 0; s < SequenceCount; s++)
        {
            for (int t = QueryStarts[s]; t < QueryStarts[s + 1]; t++)
            {
                int page = Positions[t] / layout.BlockSize;
                if (page >= MaxBlocks || (uint)BlockTables[(s * MaxBlocks) + page] >= (uint)layout.Blocks)
                    throw new ArgumentException($"{operation}: sequence {s} has no page for position {Positions[t]}.");
            }
        }
    }

    private static int[] Grown(int[] array, int length)
    {
        if (array.Length < length) Array.Resize(ref array, Math.Max(length, array.Length * 2));
        return array;
    }
}

/// <summary>The largest step that a backend will be asked to run.</summary>
/// <param name="Tokens">Most tokens.</param>
/// <param name="Sequences">Most sequences.</param>
/// <param name="BlocksPerSequence">Most pages of one sequence.</param>
/// <param name="LogitRows">Most rows of logits.</param>
public sealed record StepLimits(int Tokens, int Sequences, int BlocksPerSequence, int LogitRows);
