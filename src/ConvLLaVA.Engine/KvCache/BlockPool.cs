namespace ConvLLaVA.Engine.KvCache;

/// <summary>Page numbers and who uses them: how many tables hold each page, and which pages are free. It knows nothing of what
/// the pages hold, except that a full page may be sealed with a key that stands for its content and all before it: a sealed page
/// is never written again, and stays findable after its last table let go, until its room is needed. Page 0 is never handed out,
/// so that a zero in a table is always a mistake. Not thread-safe: one scheduler owns it.</summary>
public sealed class BlockPool
{
    private const int None = 0; // page 0 is nobody's
    private readonly int[] _references; // tables that hold each page
    private readonly UInt128[] _keys; // of sealed pages; 0 otherwise
    private readonly Dictionary<UInt128, int> _sealed = []; // key to page
    private readonly int[] _next, _previous; // links of the free list (next only) and of the kept pages
    private int _firstFree = None;
    private int _oldestKept = None, _newestKept = None;

    /// <summary>Creates a pool of pages 1 .. <paramref name="blocks"/> - 1.</summary>
    /// <param name="blocks">Pages, page 0 included; at least 2.</param>
    /// <param name="blockSize">Tokens a page holds, at least 1.</param>
    public BlockPool(int blocks, int blockSize)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(blocks, 2);
        ArgumentOutOfRangeException.ThrowIfLessThan(blockSize, 1);
        BlockSize = blockSize;
        _references = new int[blocks];
        _keys = new UInt128[blocks];
        _next = new int[blocks];
        _previous = new int[blocks];
        for (int block = blocks - 1; block > 0; block--) PushFree(block);
    }

    /// <summary>Tokens a page holds.</summary>
    public int BlockSize { get; }

    /// <summary>Pages that can be handed out.</summary>
    public int Capacity => _references.Length - 1;

    /// <summary>Pages nobody holds, the kept ones included: all of them can be taken.</summary>
    public int FreeCount { get; private set; }

    /// <summary>Sealed pages nobody holds: findable until they are taken.</summary>
    public int KeptCount { get; private set; }

    /// <summary>Pages somebody holds.</summary>
    public int UsedCount => Capacity - FreeCount;

    /// <summary>Pages that <paramref name="tokens"/> take.</summary>
    public int BlocksFor(int tokens) => (tokens + BlockSize - 1) / BlockSize;

    /// <summary>Takes a free page, held once: an empty one, otherwise the kept one that was let go of longest ago. Tables let go of
    /// their last page first, so a page is forgotten before the pages it continues.</summary>
    /// <exception cref="InvalidOperationException">No page is free: look at <see cref="FreeCount"/> first.</exception>
    public int Take()
    {
        int block = _firstFree;
        if (block != None)
        {
            _firstFree = _next[block];
        }
        else if (_oldestKept != None)
        {
            block = _oldestKept;
            Unlink(block);
            _sealed.Remove(_keys[block]);
            _keys[block] = 0;
        }
        else
        {
            throw new InvalidOperationException($"All {Capacity} pages are in use.");
        }
        _references[block] = 1;
        FreeCount--;
        return block;
    }

    /// <summary>How many tables hold <paramref name="block"/>.</summary>
    public int ReferencesOf(int block) => _references[Checked(block)];

    /// <summary>True when <paramref name="block"/> may be written: it is held once and not sealed.</summary>
    public bool IsWritable(int block) => _references[Checked(block)] == 1 && _keys[block] == 0;

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
        if (--_references[block] > 0) return;
        if (_keys[block] == 0) PushFree(block);
        else Keep(block);
    }

    /// <summary>Finds the page sealed with <paramref name="key"/>, held or not.</summary>
    public bool TryFind(UInt128 key, out int block) => _sealed.TryGetValue(key, out block);

    /// <summary>Holds a sealed page once more, whether somebody holds it or it is only kept.</summary>
    /// <exception cref="BlockException">The page is not sealed or does not exist.</exception>
    public void Reuse(int block)
    {
        if (_keys[Checked(block)] == 0) throw new BlockException($"Page {block} is not sealed and cannot be found again.");
        if (_references[block]++ > 0) return;
        Unlink(block);
        FreeCount--;
    }

    /// <summary>Seals a page of one table whose tokens are all written. When another page is sealed with the same key already, that one
    /// is held in its place, so that a key never has two pages. A page in several hands cannot be sealed: what stands before it in
    /// the other tables may be pages of other numbers, and would then be forgotten before it.</summary>
    /// <param name="block">The page.</param>
    /// <param name="key">What it holds, and all before it; not 0.</param>
    /// <returns>The page to use from now on.</returns>
    /// <exception cref="BlockException">The page is free, shared, sealed already, or does not exist.</exception>
    public int Seal(int block, UInt128 key)
    {
        ArgumentOutOfRangeException.ThrowIfEqual(key, UInt128.Zero);
        if (_references[Checked(block)] == 0) throw new BlockException($"Page {block} is free and cannot be sealed.");
        if (_keys[block] != 0) throw new BlockException($"Page {block} is sealed already.");
        if (_references[block] > 1) throw new BlockException($"Page {block} is shared and cannot be sealed.");
        if (_sealed.TryGetValue(key, out int same))
        {
            Reuse(same);
            Release(block);
            return same;
        }
        _keys[block] = key;
        _sealed.Add(key, block);
        return block;
    }

    private void PushFree(int block)
    {
        _next[block] = _firstFree;
        _firstFree = block;
        FreeCount++;
    }

    private void Keep(int block)
    {
        (_previous[block], _next[block]) = (_newestKept, None);
        if (_newestKept == None) _oldestKept = block;
        else _next[_newestKept] = block;
        _newestKept = block;
        KeptCount++;
        FreeCount++;
    }

    private void Unlink(int block)
    {
        if (_previous[block] == None) _oldestKept = _next[block];
        else _next[_previous[block]] = _next[block];
        if (_next[block] == None) _newestKept = _previous[block];
        else _previous[_next[block]] = _previous[block];
        KeptCount--;
    }

    private int Checked(int block) => block > 0 && block < _references.Length
        ? block
        : throw new BlockException($"There is no page {block}: pages are 1 to {Capacity}.");
}

/// <summary>A page was released, shared or written against the rules: a mistake in the engine, never in its input.</summary>
public sealed class BlockException(string message) : InvalidOperationException(message);
