using ConvLLaVA.Engine.KvCache;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.KvCache;

/// <summary>Pages under any sequence of operations. Each table is written with values of its own, so that a page in two hands, a
/// lost copy or a page read before it is written shows as a wrong value.</summary>
public sealed class BlockPoolTests
{
    private const int Blocks = 10, BlockSize = 3;

    [Fact]
    public void Any_operations_keep_the_books_straight()
    {
        Gen<(int Kind, int Which, int Amount)> operation =
            from kind in Gen.Choose(0, 10)
            from which in Gen.Choose(0, 1 << 20)
            from amount in Gen.Choose(0, 1 << 20)
            select (kind, which, amount);
        Prop.ForAll(operation.ListOf(60).ToArbitrary(), operations =>
        {
            var world = new World();
            foreach ((int kind, int which, int amount) in operations)
            {
                world.Apply(kind, which, amount);
                world.Check();
            }
            world.ReleaseAll();
            world.Check();
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));
    }

    [Fact]
    public void A_sealed_page_is_found_again_until_its_room_is_needed()
    {
        var pool = new BlockPool(4, 2);
        var table = new BlockTable(pool);
        table.Prepare(0, 4, (_, _) => { });
        (int first, int second) = (table.Blocks[0], table.Blocks[1]);
        table.Seal(0, 10);
        table.Seal(1, 11);
        table.Release();
        Assert.Equal((3, 2, 0), (pool.FreeCount, pool.KeptCount, pool.UsedCount));

        var again = new BlockTable(pool);
        Assert.True(pool.TryFind(10, out int found));
        again.Reuse(found);
        Assert.Equal(first, found);
        Assert.Equal((2, 1), (pool.FreeCount, pool.KeptCount));
        Assert.Throws<BlockException>(() => again.WritableSlot(1));

        int empty = pool.Take(), evicted = pool.Take(); // first the empty page, then the kept one, never the held one
        Assert.NotEqual(second, empty);
        Assert.Equal(second, evicted);
        Assert.False(pool.TryFind(11, out _));
        Assert.True(pool.TryFind(10, out _));
        Assert.Throws<InvalidOperationException>(() => pool.Take());
    }

    [Fact]
    public void A_shared_page_is_not_sealed()
    {
        // The fork would take page numbers of an earlier table for the first page, the original keeps its own: of the two pages
        // before the shared one, the sealed one could then be forgotten first.
        var pool = new BlockPool(4, 2);
        var table = new BlockTable(pool);
        table.Prepare(0, 2, (_, _) => { });
        BlockTable fork = table.Fork();
        Assert.Throws<BlockException>(() => fork.Seal(0, 5));
        table.Release();
        fork.Seal(0, 5);
        Assert.True(pool.TryFind(5, out int page));
        Assert.Equal(fork.Blocks[0], page);
    }

    [Fact]
    public void The_same_content_has_one_page()
    {
        var pool = new BlockPool(4, 2);
        var first = new BlockTable(pool);
        var second = new BlockTable(pool);
        first.Prepare(0, 2, (_, _) => { });
        second.Prepare(0, 2, (_, _) => { });
        first.Seal(0, 5);
        second.Seal(0, 5);
        Assert.Equal(first.Blocks[0], second.Blocks[0]);
        Assert.Equal((1, 2), (pool.UsedCount, pool.ReferencesOf(first.Blocks[0])));
        Assert.Throws<BlockException>(() => pool.Seal(first.Blocks[0], 6));
        Assert.Throws<BlockException>(() => pool.Seal(3, 6)); // free
        Assert.Throws<ArgumentOutOfRangeException>(() => pool.Seal(first.Blocks[0], 0));
        Assert.Throws<BlockException>(() => pool.Reuse(3));
    }

    [Fact]
    public void Pages_are_released_once_and_known_by_number()
    {
        var pool = new BlockPool(4, 16);
        int page = pool.Take();
        pool.Share(page);
        Assert.Equal(2, pool.ReferencesOf(page));
        pool.Release(page);
        pool.Release(page);
        Assert.Throws<BlockException>(() => pool.Release(page));
        Assert.Throws<BlockException>(() => pool.Share(page));
        foreach (int unknown in (int[])[0, -1, 4, int.MaxValue])
        {
            Assert.Throws<BlockException>(() => pool.Release(unknown));
            Assert.Throws<BlockException>(() => pool.Share(unknown));
            Assert.Throws<BlockException>(() => pool.ReferencesOf(unknown));
        }
        Assert.Equal((3, 3, 0), (pool.Capacity, pool.FreeCount, pool.UsedCount));
    }

    [Fact]
    public void An_empty_pool_gives_nothing_and_never_page_zero()
    {
        var pool = new BlockPool(3, 16);
        Assert.Equal([1, 2], ((int[])[pool.Take(), pool.Take()]).Order());
        Assert.Throws<InvalidOperationException>(() => pool.Take());
        Assert.Equal(0, pool.FreeCount);
    }

    [Theory]
    [InlineData(1, 16)]
    [InlineData(2, 0)]
    public void Impossible_sizes_are_refused(int blocks, int blockSize) => Assert.Throws<ArgumentOutOfRangeException>(() => new BlockPool(blocks, blockSize));

    [Theory]
    [InlineData(0, 0)]
    [InlineData(1, 1)]
    [InlineData(16, 1)]
    [InlineData(17, 2)]
    public void Tokens_take_whole_pages(int tokens, int pages) => Assert.Equal(pages, new BlockPool(8, 16).BlocksFor(tokens));

    /// <summary>A pool, its tables, the memory behind the pages, and what each table should read.</summary>
    private sealed class World
    {
        private readonly BlockPool _pool = new(Blocks, BlockSize);
        private readonly int[] _memory = new int[Blocks * BlockSize];
        private readonly List<(BlockTable Table, List<int> Expected)> _live = [];
        private readonly Dictionary<UInt128, (int Page, int[] Content, UInt128 Parent)> _sealed = []; // what was sealed, and still should be found
        private readonly Dictionary<UInt128, BlockTable[]> _holders = []; // tables that held each sealed page at the last look
        private int _lastValue;

        public void Apply(int kind, int which, int amount)
        {
            if (kind == 0 || _live.Count == 0)
            {
                _live.Add((new BlockTable(_pool), []));
                return;
            }
            (BlockTable table, List<int> expected) = _live[which % _live.Count];
            int start = expected.Count == 0 ? 0 : amount % expected.Count;
            switch (kind)
            {
                case 1 or 2 or 3: // grow
                    Write(table, expected, expected.Count, expected.Count + 1 + (amount % (2 * BlockSize)));
                    break;
                case 4: // write again, the way a fork goes its own way
                    Write(table, expected, start, expected.Count);
                    break;
                case 5:
                    _live.Add((table.Fork(), [.. expected]));
                    break;
                case 6:
                    table.Release();
                    table.Release(); // holds nothing any more: nothing happens
                    Assert.Empty(table.Blocks);
                    _live.RemoveAt(which % _live.Count);
                    break;
                case 7: // seal the full pages that are not sealed yet, first to last, as a sequence does
                    Seal(table, expected);
                    break;
                case 8: // begin like an earlier table, as far as its pages are still there
                    Reuse(expected, amount);
                    break;
                case 9: // the same tokens again, written into pages of its own and sealed: the books must not have them twice
                    Rewrite(expected);
                    break;
                default: // pages that nobody holds
                    int[] free = [.. Enumerable.Range(1, _pool.Capacity).Where(page => _pool.ReferencesOf(page) == 0)];
                    if (free.Length == 0) return;
                    Assert.Throws<BlockException>(() => _pool.Release(free[amount % free.Length]));
                    Assert.Throws<BlockException>(() => _pool.Share(free[amount % free.Length]));
                    break;
            }
        }

        public void Check()
        {
            // (1) used, kept, empty pages and page 0 are all there are.
            int empty = _pool.FreeCount - _pool.KeptCount;
            Assert.Equal(Blocks, _pool.UsedCount + _pool.KeptCount + empty + 1);
            Assert.InRange(empty, 0, _pool.Capacity);
            for (int page = 1; page < Blocks; page++)
            {
                // (2) a page is held as often as tables hold it.
                Assert.Equal(_live.Count(entry => entry.Table.Blocks.Contains(page)), _pool.ReferencesOf(page));
            }
            foreach ((BlockTable table, List<int> expected) in _live)
            {
                // (9) no page twice in a table, page 0 in none.
                Assert.Equal(table.Blocks.Count, table.Blocks.Distinct().Count());
                Assert.DoesNotContain(0, table.Blocks);
                Assert.Equal(_pool.BlocksFor(expected.Count), table.Blocks.Count);
                for (int position = 0; position < expected.Count; position++)
                {
                    int page = table.Blocks[position / BlockSize];
                    // (10) what is read is what this table wrote, whoever had the page before.
                    Assert.Equal(expected[position], _memory[(page * BlockSize) + (position % BlockSize)]);
                    // (4) a page in several hands cannot be written.
                    if (_pool.ReferencesOf(page) > 1) Assert.Throws<BlockException>(() => table.WritableSlot(position));
                }
            }
            CheckSealedPages();
        }

        /// <summary>Everything goes; kept pages are given up only now, so that they live through the operations before.</summary>
        public void ReleaseAll()
        {
            foreach ((BlockTable table, _) in _live) table.Release();
            _live.Clear();
            Assert.Equal((0, Blocks - 1), (_pool.UsedCount, _pool.FreeCount));
            CheckSealedPages();
            CheckFreePages();
        }

        private static UInt128 KeyOf(IEnumerable<int> tokens) => tokens.Aggregate((UInt128)7, (key, token) => unchecked((key * 1_000_003) + (uint)token));

        /// <summary>(5) a sealed page keeps its content and cannot be written; (6) key to page and page to content agree; (7) only pages
        /// that nobody holds are forgotten, and none before the pages that continue it.</summary>
        private void CheckSealedPages()
        {
            int kept = 0;
            foreach ((UInt128 key, (int page, int[] content, _)) in _sealed.ToArray())
            {
                if (!_pool.TryFind(key, out int found))
                {
                    Assert.DoesNotContain(_holders.GetValueOrDefault(key, []), table => table.Blocks.Contains(page)); // forgotten while held
                    _sealed.Remove(key);
                    continue;
                }
                Assert.Equal(page, found);
                Assert.Equal(content, _memory.AsSpan(page * BlockSize, BlockSize).ToArray());
                Assert.False(_pool.IsWritable(page));
                if (_pool.ReferencesOf(page) == 0) kept++;
            }
            foreach ((_, (_, _, UInt128 parent)) in _sealed) Assert.True(parent == 0 || _pool.TryFind(parent, out _), "a page was forgotten before one that continues it");
            Assert.Equal(kept, _pool.KeptCount);
            _holders.Clear();
            foreach ((UInt128 key, (int page, _, _)) in _sealed)
                _holders.Add(key, [.. _live.Select(entry => entry.Table).Where(table => table.Blocks.Contains(page))]);
            Assert.Equal(_sealed.Count, _sealed.Values.Select(entry => entry.Page).Distinct().Count());
        }

        private void Seal(BlockTable table, List<int> tokens)
        {
            UInt128 parent = 0;
            for (int page = 0; page < tokens.Count / BlockSize; page++)
            {
                UInt128 key = KeyOf(tokens.Take((page + 1) * BlockSize));
                int block = table.Blocks[page];
                if (_sealed.Values.All(entry => entry.Page != block))
                {
                    if (_pool.ReferencesOf(block) > 1)
                    {
                        Assert.Throws<BlockException>(() => table.Seal(page, key));
                        return; // what follows continues a page that is not sealed
                    }
                    table.Seal(page, key);
                    if (!_sealed.ContainsKey(key)) _sealed.Add(key, (block, [.. tokens.Skip(page * BlockSize).Take(BlockSize)], parent));
                    Assert.Equal(_sealed[key].Page, table.Blocks[page]);
                    Assert.Throws<BlockException>(() => table.Seal(page, key));
                }
                Assert.Throws<BlockException>(() => table.WritableSlot(page * BlockSize));
                parent = key;
            }
        }

        private void Reuse(List<int> tokens, int amount)
        {
            var table = new BlockTable(_pool);
            int most = tokens.Count == 0 ? 0 : amount % ((tokens.Count / BlockSize) + 1), taken = 0;
            for (; taken < most && _pool.TryFind(KeyOf(tokens.Take((taken + 1) * BlockSize)), out int block); taken++) table.Reuse(block);
            _live.Add((table, [.. tokens.Take(taken * BlockSize)]));
        }

        private void Rewrite(List<int> tokens)
        {
            int length = tokens.Count / BlockSize * BlockSize;
            var table = new BlockTable(_pool);
            if (length == 0 || table.BlocksNeeded(0, length) > _pool.FreeCount) return;
            table.Prepare(0, length, Copy);
            for (int position = 0; position < length; position++) _memory[table.WritableSlot(position)] = tokens[position];
            CheckSealedPages(); // what was given up for room is not expected any more
            Seal(table, [.. tokens.Take(length)]);
            _live.Add((table, [.. tokens.Take(length)]));
        }

        /// <summary>(3) Every free page comes out once, and none that is held.</summary>
        private void CheckFreePages()
        {
            int[] free = [.. Enumerable.Range(1, _pool.Capacity).Where(page => _pool.ReferencesOf(page) == 0)];
            int[] taken = new int[_pool.FreeCount];
            for (int i = 0; i < taken.Length; i++) taken[i] = _pool.Take();
            Assert.Equal(free, taken.Order());
            Assert.Throws<InvalidOperationException>(() => _pool.Take());
            foreach (int page in taken.Reverse()) _pool.Release(page);
        }

        private void Write(BlockTable table, List<int> expected, int start, int end)
        {
            int[] before = [.. table.Blocks];
            int needed = table.BlocksNeeded(start, end), free = _pool.FreeCount;
            if (needed > free)
            {
                Assert.Throws<InvalidOperationException>(() => table.Prepare(start, end, Copy));
                Assert.Equal(before, table.Blocks);
                Assert.Equal(free, _pool.FreeCount);
                return;
            }
            // A sealed page that only this table holds is copied too, and then kept: its room comes back.
            int last = Math.Min(table.Blocks.Count, _pool.BlocksFor(end));
            int back = Enumerable.Range(0, last).Skip(start / BlockSize).Select(i => table.Blocks[i]).Count(page => _pool.ReferencesOf(page) == 1 && !_pool.IsWritable(page));
            table.Prepare(start, end, Copy);
            Assert.Equal(free - needed + back, _pool.FreeCount);
            for (int position = start; position < end; position++)
            {
                _memory[table.WritableSlot(position)] = ++_lastValue;
                if (position == expected.Count) expected.Add(_lastValue);
                else expected[position] = _lastValue;
            }
        }

        private void Copy(int from, int to)
        {
            Assert.NotEqual(from, to);
            Array.Copy(_memory, from * BlockSize, _memory, to * BlockSize, BlockSize);
        }
    }
}
