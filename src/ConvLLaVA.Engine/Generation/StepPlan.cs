using ConvLLaVA.Engine.KvCache;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Generation;

/// <summary>What one step runs. Reused from step to step: its arrays grow to the largest step and stay.</summary>
internal sealed class StepPlan(int blockSize)
{
    private readonly List<RunningSequence> _sequences = [];
    private readonly List<int> _counts = [];

    /// <summary>The sequences of the step, in the order of their rows.</summary>
    public IReadOnlyList<RunningSequence> Sequences => _sequences;

    /// <summary>Where the tokens lie in the pages.</summary>
    public PagedBatch Batch { get; } = new() { BlockSize = blockSize };

    /// <summary>Tokens planned so far.</summary>
    public int TokenCount { get; private set; }

    /// <summary>Forgets the last step.</summary>
    public void Clear()
    {
        _sequences.Clear();
        _counts.Clear();
        TokenCount = 0;
    }

    /// <summary>Adds the next <paramref name="count"/> pending tokens of a sequence whose pages are writable.</summary>
    public void Add(RunningSequence sequence, int count)
    {
        _sequences.Add(sequence);
        _counts.Add(count);
        TokenCount += count;
    }

    /// <summary>Tokens of sequence <paramref name="index"/> in this step.</summary>
    public int CountOf(int index) => _counts[index];

    /// <summary>Books that the step ran for sequence <paramref name="index"/>: its tokens are in the pages now, and pages that are full
    /// can be found by others.</summary>
    /// <returns>True when its whole text is processed, so that its next token can be chosen.</returns>
    public bool Complete(int index)
    {
        bool whole = WantsToken(index);
        RunningSequence sequence = _sequences[index];
        int firstFull = sequence.Computed / blockSize;
        sequence.Computed += _counts[index];
        if (sequence.Keys is { } keys)
        {
            for (int page = firstFull; page < sequence.Computed / blockSize; page++) sequence.Table!.Seal(page, keys.Of(page));
        }
        return whole;
    }

    /// <summary>Fills <see cref="Batch"/>.</summary>
    public void Build()
    {
        int maxBlocks = 0;
        foreach (RunningSequence sequence in _sequences) maxBlocks = Math.Max(maxBlocks, sequence.Table!.Blocks.Count);
        PagedBatch batch = Batch;
        batch.TokenCount = TokenCount;
        batch.SequenceCount = _sequences.Count;
        batch.MaxBlocks = maxBlocks;
        batch.LogitCount = 0;
        batch.TokenIds = Grown(batch.TokenIds, TokenCount);
        batch.Positions = Grown(batch.Positions, TokenCount);
        batch.Slots = Grown(batch.Slots, TokenCount);
        batch.QueryStarts = Grown(batch.QueryStarts, _sequences.Count + 1);
        batch.ContextLengths = Grown(batch.ContextLengths, _sequences.Count);
        batch.LogitRows = Grown(batch.LogitRows, _sequences.Count);
        batch.BlockTables = Grown(batch.BlockTables, _sequences.Count * maxBlocks);
        int row = 0;
        for (int s = 0; s < _sequences.Count; s++)
        {
            RunningSequence sequence = _sequences[s];
            BlockTable table = sequence.Table!;
            batch.QueryStarts[s] = row;
            batch.ContextLengths[s] = sequence.Computed + _counts[s];
            for (int position = sequence.Computed; position < sequence.Computed + _counts[s]; position++, row++)
            {
                batch.TokenIds[row] = sequence.Tokens[position];
                batch.Positions[row] = position;
                batch.Slots[row] = table.WritableSlot(position);
            }
            for (int i = 0; i < table.Blocks.Count; i++) batch.BlockTables[(s * maxBlocks) + i] = table.Blocks[i];
            Array.Clear(batch.BlockTables, (s * maxBlocks) + table.Blocks.Count, maxBlocks - table.Blocks.Count);
            if (WantsToken(s)) batch.LogitRows[batch.LogitCount++] = row - 1;
        }
        batch.QueryStarts[_sequences.Count] = row;
    }

    /// <summary>True when the step processes the last pending token of sequence <paramref name="index"/>, so that its next one can be chosen.</summary>
    public bool WantsToken(int index) => _counts[index] == _sequences[index].Pending;

    private static int[] Grown(int[] array, int length) => array.Length >= length ? array : new int[Math.Max(length, array.Length * 2)];
}
