namespace ConvLLaVA.Engine.KvCache;

/// <summary>Page numbers and who uses them: how many tables hold each page, and which pages are free. It knows nothing of what
/// the pages hold. Page 0 is never handed out, so that a zero in a table is always a mistake. Not thread-safe: one scheduler
/// owns it.</summary>
public sealed class BlockPool
{
    private const int None = -1;
    private readonly int[] _references; // tables that hold each page
    private readonly int[] _nextFree; // singly linked free list through the pages
    private int _firstFree = None;

    /// <summary>Creates a pool of pages 1 .. <paramref name="blocks"/> - 1.</summary>
    /// <param name="blocks">Pages, page 0 included; at least 2.</param>
    /// <param name="blockSize">Tokens a page holds, at least 1.</param>
    public BlockPool(int blocks, int blockSize)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(blocks, 2);
        ArgumentOutOfRangeException.ThrowIfLessThan(blockSize, 1);
        BlockSize = blockSize;
        _references = new int[blocks];
        _nextFree = new int[blocks];
        for (int block = blocks - 1; block > 0; block--) PushFree(block);
    }

    /// <summary>Tokens a page holds.</summary>
    public int BlockSize { get; }

    /// <summary>Pages that can be handed out.</summary>
    public int Capacity => _references.Length - 1;

    /// <summary>Pages nobody holds.</summary>
    public int FreeCount { get; private set; }

    /// <summary>Pages somebody holds.</summary>
    public int UsedCount => Capacity - FreeCount;

    /// <summary>Pages that <paramref name="tokens"/> take.</summary>
    public int BlocksFor(int tokens) => (tokens + BlockSize - 1) / BlockSize;

    /// <summary>Takes a free page, held once.</summary>
    /// <exception cref="InvalidOperationException">No page is free: look at <see cref="FreeCount"/> first.</exception>
    public int Take()
    {
        if (_firstFree == None) throw new InvalidOperationException($"All {Capacity} pages are in use.");
        int block = _firstFree;
        _firstFree = _nextFree[block];
        _references[block] = 1;
        FreeCount--;
        return block;
    }

    /// <summary>How many tables hold <paramref name="block"/>.</summary>
    public int ReferencesOf(int block) => _references[Checked(block)];

    /// <summary>Holds a page in use once more.</summary>
    /// <exception cref="BlockException">The page is free or does not exist.</exception>
    public void Share(int block)
    {
        if (_references[Checked(block)] == 0) throw new BlockException($"Page {block} is free and cannot be shared.");
        _references[block]++;
    }

    /// <summary>Lets go of a page; the last one to do so frees it.</summary>
    /// <exception cref="BlockException">The page is free already or does not exist.</exception>
    public void Release(int block)
    {
        if (_references[Checked(block)] == 0) throw new BlockException($"Page {block} is released but nobody holds it.");
        if (--_references[block] == 0) PushFree(block);
    }

    private void PushFree(int block)
    {
        _nextFree[block] = _firstFree;
        _firstFree = block;
        FreeCount++;
    }

    private int Checked(int block) => block > 0 && block < _references.Length
        ? block
        : throw new BlockException($"There is no page {block}: pages are 1 to {Capacity}.");
}

/// <summary>A page was released, shared or written against the rules: a mistake in the engine, never in its input.</summary>
public sealed class BlockException(string message) : InvalidOperationException(message);
