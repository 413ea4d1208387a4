using ConvLLaVA.Engine.Cpu;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Cpu;

/// <summary>Options, memory and threads of the CPU backend.</summary>
public sealed class BackendTests
{
    [Fact]
    public void Options_OutOfRange_AreRefused()
    {
        Assert.Throws<InvalidInputException>(() => new CpuBackend(-1));
        Assert.Throws<InvalidInputException>(() => new CpuBackend(100000));
        Assert.Throws<InvalidInputException>(() => new CpuBackend(1, (CpuPath)77));
        Assert.Contains("sse9", Assert.Throws<InvalidInputException>(() => CpuPaths.Resolve(CpuPath.Auto, "sse9")).Message, StringComparison.Ordinal);
        Assert.Equal(CpuPath.Scalar, CpuPaths.Resolve(CpuPath.Auto, " Scalar "));
        Assert.Equal(CpuPath.Vector128, CpuPaths.Resolve(CpuPath.Vector128, "scalar"));
        Assert.NotEqual(CpuPath.Auto, CpuPaths.Resolve(CpuPath.Auto, null));
        using var one = new CpuBackend(1, CpuPath.Scalar);
        Assert.Equal("cpu (scalar, 1 thread)", one.Name);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Dispose_InAnyOrder_LeavesTheLedgerEmpty(int order)
    {
        var bench = new Workbench(threads: 2);
        CpuBackend backend = bench.Backend;
        float[] weights = new float[64];
        bench.Linear(weights, 8, DType.BFloat16, new float[8], new float[8]);
        EmbeddingTable _ = backend.LoadEmbedding(bench.Weight(weights, DType.Float16, 8, 8));
        Assert.Equal(64 * 2 * 2, backend.Memory.Held(MemoryOwner.MappedWeights));
        Assert.Equal(8 * 4 * 2, backend.Memory.Held(MemoryOwner.Weights));
        KvStorage kv = backend.CreateKvStorage(new KvLayout(2, 3, 16, 2, 8));
        Assert.Equal(kv.ByteLength, backend.Memory.Held(MemoryOwner.KvCache));
        MemoryBlock block = backend.Allocate(1000, MemoryOwner.ImageFeatures);
        Assert.Equal(0, block.Data % 64);
        IDisposable[] all = [kv, block, bench];
        Assert.Equal(1000, backend.Memory.Held(MemoryOwner.ImageFeatures));
        if (order < 3)
        {
            // The backend last, or its own check would see what the others hold.
            (all[0], all[order % 2]) = (all[order % 2], all[0]);
            foreach (IDisposable one in all) one.Dispose();
        }
        else
        {
            backend.Dispose();
            block.Dispose();
            kv.Dispose();
            bench.Dispose();
        }
        foreach (IDisposable one in all) one.Dispose();
        Assert.Equal(0, backend.Memory.Total);
        Assert.Throws<ObjectDisposedException>(() => block.Data);
        Assert.Throws<ObjectDisposedException>(() => backend.Allocate(1, MemoryOwner.Workspace));
    }

    [Fact]
    public void Load_TheSameTensorTwice_IsBookedOnce()
    {
        using var bench = new Workbench(threads: 1);
        WeightTensor tied = bench.Weight(new float[64], DType.BFloat16, 8, 8);
        bench.Backend.LoadEmbedding(tied);
        bench.Backend.LoadLinear([tied]);
        Assert.Equal(128, bench.Backend.Memory.Held(MemoryOwner.MappedWeights));
    }

    [Fact]
    public void Load_FromMemoryOfTheBackend_IsNotBookedAgain()
    {
        using var bench = new Workbench(threads: 1);
        using MemoryBlock rounded = bench.Backend.Allocate(128, MemoryOwner.Weights);
        bench.Backend.LoadLinear([new WeightTensor("rounded", DType.BFloat16, [8, 8], rounded.Data, "test.safetensors")]);
        Assert.Equal(0, bench.Backend.Memory.Held(MemoryOwner.MappedWeights));
        Assert.Equal(128, bench.Backend.Memory.Held(MemoryOwner.Weights));
    }

    [Fact]
    public void Allocate_MoreThanTheMachineHas_SaysWhatWasAskedAndWhatIsHeld()
    {
        using var bench = new Workbench(threads: 1);
        ConvLlavaException error = Assert.Throws<ConvLlavaException>(() => bench.Backend.Allocate(long.MaxValue / 4, MemoryOwner.KvCache));
        Assert.Contains("KvCache asked for", error.Message, StringComparison.Ordinal);
        Assert.Contains("Workspace ", error.Message, StringComparison.Ordinal);
        Assert.Equal(0, bench.Backend.Memory.Held(MemoryOwner.KvCache));
    }

    [Fact]
    public void Load_WrongShapes_NameTheTensor()
    {
        using var bench = new Workbench(threads: 1);
        WeightTensor matrix = bench.Weight(new float[12], DType.Float32, 3, 4), three = bench.Weight(new float[3], DType.Float32, 3);
        foreach (Action bad in new Action[]
        {
            () => bench.Backend.LoadLinear([three]),
            () => bench.Backend.LoadLinear([matrix], bench.Weight(new float[4], DType.Float32, 4)),
            () => bench.Backend.LoadLinear([matrix, bench.Weight(new float[10], DType.Float32, 2, 5)]),
            () => bench.Backend.LoadLinear([matrix, bench.Weight(new float[12], DType.Float16, 3, 4)]),
            () => bench.Backend.LoadDepthwise(matrix, three),
            () => bench.Backend.LoadPatchConvolution(matrix, three),
            () => bench.Backend.LoadNorm(matrix, null, 1e-6f),
            () => bench.Backend.LoadEmbedding(three),
        })
        {
            Assert.Contains("test.weight", Assert.Throws<InvalidInputException>(bad).Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Planning_TakesTheSameMemoryAsTheRealStep()
    {
        using var bench = new Workbench(threads: 1);
        float[] gateUp = new float[2 * 40 * 24], down = new float[24 * 40], norm = new float[24];
        LinearWeight first = bench.Linear(gateUp, 80), second = bench.Linear(down, 24);
        NormWeight rms = bench.Norm(norm, null, 1e-5f);
        using Workspace plan = Workspace.ForPlanning(), real = bench.Workspace();
        bench.Backend.NormGatedMlpResidual(plan.Take(5, 24), rms, first, second, plan);
        bench.Backend.NormGatedMlpResidual(real.Take(5, 24), rms, first, second, real);
        Assert.Equal(plan.HighWaterMark, real.HighWaterMark);
        bench.Backend.Linear(plan.Take(5, 24), first, Activation.Gelu, plan.Take(5, 80));
    }

    [Fact]
    public void Copy_MovesAMatrix()
    {
        using var bench = new Workbench(threads: 1);
        float[] values = Workbench.Random(new Random(1), 30);
        Tensor to = bench.Empty(5, 6);
        bench.Backend.Copy(bench.Matrix(values, 5), to);
        Assert.Equal(values, bench.Get(to));
        Assert.Throws<ArgumentException>(() => bench.Backend.Copy(to, bench.Empty(6, 5)));
    }

    [Fact]
    public void WorkerPool_RunsEveryTaskOnce_AndCarriesExceptions()
    {
        using var pool = new WorkerPool(4);
        for (int round = 0; round < 2000; round++)
        {
            var done = new int[round % 37];
            pool.Run(done.Length, (task, worker) =>
            {
                Assert.InRange(worker, 0, 3);
                Interlocked.Increment(ref done[task]);
            });
            Assert.All(done, count => Assert.Equal(1, count));
        }
        for (int round = 0; round < 100; round++)
        {
            Assert.Throws<InvalidOperationException>(() => pool.Run(16, (task, _) =>
            {
                if (task == round % 16) throw new InvalidOperationException("task");
            }));
        }
        pool.Dispose();
        Assert.Throws<ObjectDisposedException>(() => pool.Run(2, (_, _) => { }));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(5)]
    public void WorkerPool_InShares_RunsEveryItemOnce_AndGoesOnAfterAnException(int threads)
    {
        using var pool = new WorkerPool(threads);
        for (int round = 0; round < 1000; round++)
        {
            var counting = new CountingWork(new int[round % 61], -1);
            pool.RunInShares(counting.Done.Length, 1 + (round % 5), ref counting);
            Assert.All(counting.Done, count => Assert.Equal(1, count));
            if (counting.Done.Length == 0) continue;
            var failing = new CountingWork(new int[counting.Done.Length], round % counting.Done.Length);
            Assert.Throws<InvalidOperationException>(() => pool.RunInShares(failing.Done.Length, 3, ref failing));
        }
    }

    private readonly struct CountingWork(int[] done, int failing) : IWork
    {
        public int[] Done => done;

        public void Do(int first, int end, int worker)
        {
            Assert.True(first < end);
            for (int item = first; item < end; item++)
            {
                if (item == failing) throw new InvalidOperationException("item");
                Interlocked.Increment(ref done[item]);
            }
        }
    }
}
