namespace ConvLLaVA.Engine.KvCache;

/// <summary>The pages of one sequence in order. Grows at its end only; a fork shares all pages, and the first to write to a
/// shared page gets a copy of its own.</summary>
public sealed class BlockTable(BlockPool pool)
{
    private readonly List<int> _blocks = [];

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
            if (pool.ReferencesOf(_blocks[i]) > 1) needed++;
        }
        return needed;
    }

    /// <summary>Makes tokens <paramref name="start"/> .. <paramref name="end"/> - 1 writable: adds pages, and copies shared
    /// ones.</summary>
    /// <param name="start">First token that will be written.</param>
    /// <param name="end">End of them.</param>
    /// <param name="copy">Told of each page whose content must be copied: from, to.</param>
    /// <exception cref="InvalidOperationException">Too few pages are free; nothing has changed then.</exception>
    public void Prepare(int start, int end, Action<int, int> copy)
    {
        if (BlocksNeeded(start, end) > pool.FreeCount)
            throw new InvalidOperationException($"{BlocksNeeded(start, end)} pages are needed but {pool.FreeCount} are free.");
        for (int i = start / pool.BlockSize; i < Math.Min(_blocks.Count, pool.BlocksFor(end)); i++)
        {
            if (pool.ReferencesOf(_blocks[i]) == 1) continue;
            int own = pool.Take();
            copy(_blocks[i], own);
            pool.Release(_blocks[i]);
            _blocks[i] = own;
        }
        while (Room < end) _blocks.Add(pool.Take());
    }

    /// <summary>Where token <paramref name="position"/> goes: page * block size + offset.</summary>
    /// <exception cref="BlockException">The page is shared and must not be written.</exception>
    public int WritableSlot(int position)
    {
        int block = _blocks[position / pool.BlockSize];
        if (pool.ReferencesOf(block) != 1) throw new BlockException($"Page {block} is held {pool.ReferencesOf(block)} times and must not be written.");
        return (block * pool.BlockSize) + (position % pool.BlockSize);
    }

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
