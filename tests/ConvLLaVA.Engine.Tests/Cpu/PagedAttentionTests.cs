using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Cpu;

/// <summary>Projection, RoPE, pages and attention together, against a contiguous reference.</summary>
public sealed class PagedAttentionTests
{
    public static TheoryData<CpuPath> Paths => Workbench.Paths;

    /// <summary>One attention layer with pages, and what should come out of it.</summary>
    private sealed class Layer
    {
        private readonly Workbench _bench;
        private readonly float[] _qkv;
        private readonly float[] _norm;
        private readonly LinearWeight _weight;
        private readonly NormWeight _normWeight;
        private readonly int _hidden = 24;

        public Layer(Workbench bench, int heads, int kvHeads, int headDim, int blockSize, int blocks = 64)
        {
            _bench = bench;
            (Heads, KvHeads, HeadDim, BlockSize) = (heads, kvHeads, headDim, blockSize);
            var random = new Random(31);
            _qkv = Workbench.Random(random, (heads + 2 * kvHeads) * headDim * _hidden, 0.7);
            _norm = Workbench.Random(random, _hidden);
            _weight = bench.Linear(_qkv, (heads + 2 * kvHeads) * headDim);
            _normWeight = bench.Norm(_norm, null, 1e-5f);
            Kv = bench.Backend.CreateKvStorage(new KvLayout(2, blocks, blockSize, kvHeads, headDim));
        }

        public int Heads { get; }
        public int KvHeads { get; }
        public int HeadDim { get; }
        public int BlockSize { get; }
        public KvStorage Kv { get; }

        public float[] Tokens(int seed, int count) => Workbench.Random(new Random(seed), count * _hidden);

        /// <summary>Runs tokens [from, to) of each sequence in one step; block tables in any order.</summary>
        public float[] Step(params (float[] Tokens, int From, int To, int[] Table)[] sequences)
        {
            int maxBlocks = sequences.Max(s => s.Table.Length) + 1;
            var positions = new List<int>();
            var slots = new List<int>();
            var starts = new List<int> { 0 };
            var tables = new int[sequences.Length * maxBlocks];
            var input = new List<float>();
            for (int s = 0; s < sequences.Length; s++)
            {
                (float[] tokens, int from, int to, int[] table) = sequences[s];
                table.CopyTo(tables, s * maxBlocks);
                for (int t = from; t < to; t++)
                {
                    positions.Add(t);
                    slots.Add(table[t / BlockSize] * BlockSize + t % BlockSize);
                }
                input.AddRange(tokens[(from * _hidden)..(to * _hidden)]);
                starts.Add(positions.Count);
            }
            var batch = new PagedBatch
            {
                TokenCount = positions.Count,
                SequenceCount = sequences.Length,
                BlockSize = BlockSize,
                MaxBlocks = maxBlocks,
                Positions = [.. positions],
                Slots = [.. slots],
                QueryStarts = [.. starts],
                ContextLengths = [.. sequences.Select(s => s.To)],
                BlockTables = tables,
            };
            Tensor x = _bench.Matrix([.. input], positions.Count);
            Tensor query = _bench.Empty(positions.Count, Heads * HeadDim), output = _bench.Empty(positions.Count, Heads * HeadDim);
            using Workspace workspace = _bench.Workspace();
            _bench.Backend.NormQkvRope(x, _normWeight, _weight, new RopeParameters(HeadDim, 10000, 2), batch, Kv, 1, query, workspace);
            _bench.Backend.PagedAttention(query, batch, Kv, 1, output, workspace);
            return _bench.Get(output);
        }

        /// <summary>The outputs of tokens [from, to) of one sequence.</summary>
        public double[] Expected(float[] tokens, int from, int to)
        {
            int q = Heads * HeadDim, k = KvHeads * HeadDim;
            var keys = new List<double[]>();
            var values = new List<double[]>();
            var result = new List<double>();
            for (int t = 0; t < to; t++)
            {
                double[] n = ReferenceOps.RmsNorm(ReferenceOps.Wide(tokens[(t * _hidden)..((t + 1) * _hidden)]), 1, _norm, 1e-5);
                double[] row = ReferenceOps.Linear(n, 1, _qkv, q + 2 * k);
                double[] query = row[..q], key = row[q..(q + k)];
                ReferenceOps.Rope(query, HeadDim, t, 10000, 2);
                ReferenceOps.Rope(key, HeadDim, t, 10000, 2);
                keys.Add(key);
                values.Add(row[(q + k)..]);
                if (t >= from) result.AddRange(ReferenceOps.Attention(query, keys, values, Heads, KvHeads, t + 1));
            }
            return [.. result];
        }
    }

    [Theory, MemberData(nameof(Paths))]
    public void ScatteredPages_AgreeWithContiguousReference(CpuPath path)
    {
        using var bench = new Workbench(path);
        foreach ((int heads, int kvHeads, int headDim, int blockSize) in new[] { (4, 4, 8, 16), (4, 2, 64, 16), (6, 1, 34, 5), (2, 2, 128, 16), (3, 3, 2, 20) })
        {
            var layer = new Layer(bench, heads, kvHeads, headDim, blockSize);
            using KvStorage kv = layer.Kv;
            float[] tokens = layer.Tokens(1, 45);
            float[] actual = layer.Step((tokens, 0, 45, [17, 3, 9, 40, 5, 8, 20, 11, 1, 2]));
            double error = Workbench.Error(actual, layer.Expected(tokens, 0, 45));
            Assert.True(error < 3e-6, $"{heads}/{kvHeads} heads of {headDim}, pages of {blockSize}: {error}");
        }
    }

    [Theory, MemberData(nameof(Paths))]
    public void MixedPrefillAndDecode_HasTheBitsOfSeparateSteps(CpuPath path)
    {
        using var bench = new Workbench(path);
        var layer = new Layer(bench, 4, 2, 20, 16);
        using KvStorage kv = layer.Kv;
        float[] a = layer.Tokens(1, 60), b = layer.Tokens(2, 60), c = layer.Tokens(3, 60);
        int[] ta = [4, 9, 2, 30], tb = [31, 1, 12, 13], tc = [20, 22, 21, 5];
        // Together: a decodes while b and c process pieces of their prompts.
        layer.Step((a, 0, 37, ta));
        float[] mixed = layer.Step((a, 37, 38, ta), (b, 0, 21, tb), (c, 0, 50, tc));
        float[] later = layer.Step((b, 21, 34, tb), (a, 38, 39, ta));
        int width = layer.Heads * layer.HeadDim;

        // Alone, token by token or all at once, in other pages.
        int[] ua = [50, 51, 52, 53], ub = [60, 59, 58, 57], uc = [40, 41, 42, 43];
        var aloneA = new List<float>();
        for (int t = 0; t < 39; t++) aloneA.AddRange(layer.Step((a, t, t + 1, ua)));
        float[] aloneB = layer.Step((b, 0, 34, ub)), aloneC = layer.Step((c, 0, 50, uc));
        Assert.Equal(aloneA.Skip(37 * width).Take(width), mixed.Take(width));
        Assert.Equal(aloneB.Take(21 * width), mixed.Skip(width).Take(21 * width));
        Assert.Equal(aloneC, mixed.Skip(22 * width));
        Assert.Equal(aloneB.Skip(21 * width), later.Take(13 * width));
        Assert.Equal(aloneA.Skip(38 * width), later.Skip(13 * width));
    }

    [Theory, MemberData(nameof(Paths))]
    public void ContextsOfSeveralSteps_AgreeWithReferenceAndWithPieces(CpuPath path)
    {
        using var bench = new Workbench(path);
        // The softmax advances by 128 positions, by the whole pages that fit, or by a page that is longer.
        foreach ((int headDim, int blockSize) in new[] { (80, 16), (64, 24), (16, 150) })
        {
            var layer = new Layer(bench, 2, 1, headDim, blockSize);
            using KvStorage kv = layer.Kv;
            float[] tokens = layer.Tokens(1, 290);
            int[] table = [.. Enumerable.Range(0, 30).Select(i => 59 - 2 * i)], other = [.. table.Select(i => i - 1)];
            float[] whole = layer.Step((tokens, 0, 290, table));
            double error = Workbench.Error(whole, layer.Expected(tokens, 0, 290));
            Assert.True(error < 3e-6, $"heads of {headDim}, pages of {blockSize}: {error}");
            float[] pieces = [.. layer.Step((tokens, 0, 127, other)), .. layer.Step((tokens, 127, 128, other)), .. layer.Step((tokens, 128, 129, other)),
                .. layer.Step((tokens, 129, 289, other)), .. layer.Step((tokens, 289, 290, other))];
            Assert.Equal(whole, pieces);
        }
    }

    [Fact]
    public void PathsAndThreads_GiveTheSameBits()
    {
        float[]? first = null;
        foreach (CpuPath path in new[] { CpuPath.Avx512, CpuPath.Avx2, CpuPath.Vector128, CpuPath.Scalar })
        {
            if (!CpuPaths.IsSupported(path)) continue;
            foreach (int threads in new[] { 1, 2 })
            {
                using var bench = new Workbench(path, threads);
                var layer = new Layer(bench, 4, 2, 70, 16);
                using KvStorage kv = layer.Kv;
                float[] values = layer.Step((layer.Tokens(1, 150), 0, 150, [7, 5, 3, 9, 1, 4, 0, 8, 2, 6]));
                first ??= values;
                Assert.Equal(first, values);
            }
        }
    }

    [Fact]
    public void CopyKvBlock_LaterWritesLeaveTheOriginalAlone()
    {
        using var bench = new Workbench();
        var layer = new Layer(bench, 2, 1, 16, 16);
        using KvStorage kv = layer.Kv;
        float[] prompt = layer.Tokens(1, 24);
        float[] one = [.. prompt], two = [.. prompt];
        for (int i = 20 * 24; i < one.Length; i++) two[i] += 1;
        layer.Step((prompt, 0, 20, [3, 4]));
        bench.Backend.CopyKvBlock(layer.Kv, 4, 9);
        float[] second = layer.Step((two, 20, 24, [3, 9]));
        float[] firstly = layer.Step((one, 20, 24, [3, 4]));
        Assert.Equal(layer.Step((one, 0, 24, [10, 11])).Skip(20 * 32), firstly);
        Assert.Equal(layer.Step((two, 0, 24, [12, 13])).Skip(20 * 32), second);
        Assert.Throws<ArgumentOutOfRangeException>(() => bench.Backend.CopyKvBlock(layer.Kv, 0, 64));
    }

    [Fact]
    public void PagesOutsideTheCache_AreRefused()
    {
        using var bench = new Workbench();
        var layer = new Layer(bench, 2, 1, 16, 16, blocks: 4);
        using KvStorage kv = layer.Kv;
        Assert.Throws<ArgumentException>(() => layer.Step((layer.Tokens(1, 20), 0, 20, [3, 4])));
        Assert.Throws<ArgumentException>(() => layer.Step((layer.Tokens(1, 20), 0, 20, [3, -1])));
    }
}
