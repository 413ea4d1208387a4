namespace ConvLLaVA.Engine.KvCache;

/// <summary>The pages of one sequence in order. Grows at its end only; a fork shares all pages, and the first to write to a
/// shared or sealed page gets a copy of its own.</summary>
public sealed class BlockTable(BlockPool pool)
{
    private readonly List<int> _blocks = [];
    private readonly List<int> _replaced = []; // empty but for a moment

    /// <summary>Page numbers in order.</summary>
    public IReadOnlyList<int> Blocks => _blocks;

    /// <summary>Tokens the pages have room for.</summary>
    public int Room => _blocks.Count * pool.BlockSize;

    /// <summary>Pages that must be free before <see cref="Prepare"/> can make tokens <paramref name="start"/> ..
    /// <paramref name="end"/> - 1 writable.</summary>
    public int BlocksNeeded(int start, int end)
    {
        int needed = Math.Max(0, pool.BlocksFor(end) - _blocks.Count);
        for (int i = start / pool.BlockSize; i < Math.Min(_blocks.Count, pool.BlocksFor(end)); i++)
        {
            if (!pool.IsWritable(_blocks[i])) needed++;
        }
        return needed;
    }

    /// <summary>Makes tokens <paramref name="start"/> .. <paramref name="end"/> - 1 writable: adds pages, and copies shared
    /// and sealed ones.</summary>
    /// <param name="start">First token that will be written.</param>
    /// <param name="end">End of them.</param>
    /// <param name="copy">Told of each page whose content must be copied: from, to.</param>
    /// <exception cref="InvalidOperationException">Too few pages are free; nothing has changed then.</exception>
    public void Prepare(int start, int end, Action<int, int> copy)
    {
        if (BlocksNeeded(start, end) > pool.FreeCount)
            throw new InvalidOperationException($"{BlocksNeeded(start, end)} pages are needed but {pool.FreeCount} are free.");
        int first = start / pool.BlockSize, last = Math.Min(_blocks.Count, pool.BlocksFor(end)) - 1;
        for (int i = first; i <= last; i++)
        {
            if (pool.IsWritable(_blocks[i])) continue;
            int own = pool.Take();
            copy(_blocks[i], own);
            _replaced.Add(_blocks[i]);
            _blocks[i] = own;
        }
        // Last first, as everywhere: a page must not be forgotten while one that continues it is findable.
        for (int i = _replaced.Count - 1; i >= 0; i--) pool.Release(_replaced[i]);
        _replaced.Clear();
        while (Room < end) _blocks.Add(pool.Take());
    }

    /// <summary>Where token <paramref name="position"/> goes: page * block size + offset.</summary>
    /// <exception cref="BlockException">The page is shared or sealed and must not be written.</exception>
    public int WritableSlot(int position)
    {
        int block = _blocks[position / pool.BlockSize];
        if (!pool.IsWritable(block))
            throw new BlockException($"Page {block} is {(pool.ReferencesOf(block) > 1 ? "shared" : "sealed")} and must not be written.");
        return (block * pool.BlockSize) + (position % pool.BlockSize);
    }

    /// <summary>Continues with a sealed page that some sequence has written before.</summary>
    public void Reuse(int block)
    {
        pool.Reuse(block);
        _blocks.Add(block);
    }

    /// <summary>Seals page number <paramref name="index"/> of this sequence, whose tokens are all written; see <see cref="BlockPool.Seal"/>.</summary>
    public void Seal(int index, UInt128 key) => _blocks[index] = pool.Seal(_blocks[index], key);

    /// <summary>A second table over the same pages.</summary>
    public BlockTable Fork()
    {
        var fork = new BlockTable(pool);
        foreach (int block in _blocks)
        {
            pool.Share(block);
            fork._blocks.Add(block);
        }
        return fork;
    }

    /// <summary>Lets go of all pages, the last first.</summary>
    public void Release()
    {
        for (int i = _blocks.Count - 1; i >= 0; i--) pool.Release(_blocks[i]);
        _blocks.Clear();
    }
}
