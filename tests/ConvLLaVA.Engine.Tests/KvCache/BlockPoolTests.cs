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
            from kind in Gen.Choose(0, 7)
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
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(400));
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
            // (1) used and free pages and page 0 are all there are.
            Assert.Equal(Blocks, _pool.UsedCount + _pool.FreeCount + 1);
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
            CheckFreePages();
        }

        public void ReleaseAll()
        {
            foreach ((BlockTable table, _) in _live) table.Release();
            _live.Clear();
            Assert.Equal((0, Blocks - 1), (_pool.UsedCount, _pool.FreeCount));
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
            table.Prepare(start, end, Copy);
            Assert.Equal(free - needed, _pool.FreeCount);
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
