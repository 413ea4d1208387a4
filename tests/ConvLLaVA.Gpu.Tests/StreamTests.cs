using ConvLLaVA.Cuda;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Gpu.Tests;

/// <summary>Who drives the device, over which streams, and which kernels may begin before the one ahead of them has ended.</summary>
public sealed class StreamTests : IDisposable
{
    private readonly string _scratch = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public StreamTests() => Emulator.Start();

    public void Dispose()
    {
        Directory.Delete(_scratch, true);
        Emulator.RequireNoReports();
    }

    [Fact]
    public async Task Only_a_kernel_right_behind_a_kernel_of_the_same_step_may_begin_early()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda());
        GpuBackend gpu = model.Gpu();
        GpuStream stream = gpu.Stream;
        stream.Enter();
        using MemoryBlock block = gpu.Allocate(1 << 16, MemoryOwner.Workspace);
        using var mark = new CudaEvent(stream.Context);
        using var other = new CudaStream(stream.Context);
        // Any kernel will do: silu_multiply of one row.
        using GpuKernels kernels = Kernels(gpu);
        stream.Fill(block.Data, 0, block.ByteLength);
        Assert.Equal(0, Overlapped(Launch));
        Assert.Equal(1, Overlapped(Launch));
        Assert.Equal(2, Overlapped(Launch, Launch));
        Assert.Equal(0, Overlapped(stream.BeginStep, Launch));
        Assert.Equal(0, Overlapped(() => stream.Record(mark), Launch));
        mark.Record(other);
        Assert.Equal(0, Overlapped(() => stream.WaitOnDevice(mark), Launch));
        Assert.Equal(0, Overlapped(() => stream.CopyOnDevice(block.Data, block.Data + 4096, 16), Launch));
        Assert.Equal(0, Overlapped(() => stream.Fill(block.Data, 0, 16), Launch));
        Assert.Equal(0, Overlapped(() => stream.Copies.Begin().Dispose(), Launch));
        using (var host = new PinnedBuffer(stream.Context, 64))
        {
            Assert.Equal(0, Overlapped(() => Read(host), Launch));
            stream.Synchronize();
        }
        stream.BeginCapture();
        Assert.Equal(1, Overlapped(Launch, Launch)); // the first of a recording waits too
        using (CudaGraph graph = stream.EndCapture())
        using (CudaGraphExec executable = graph.Instantiate())
        {
            Assert.Equal(0, Overlapped(Launch));
            Assert.Equal(0, Overlapped(() => stream.Replay(executable), Launch));
            stream.Synchronize();
        }
        var observer = new Nobody();
        stream.Observer = observer;
        Assert.Equal(0, Overlapped(Launch, Launch)); // observers put events between kernels
        stream.Observer = null;
        stream.Synchronize();

        void Launch() => kernels.SiluMultiply(block.Data, block.Data + 8192, 1, 64);
        unsafe void Read(PinnedBuffer host) => stream.CopyToHost(host.Pointer, block.Data, 64);
    }

    [Fact]
    public async Task A_decoding_step_overlaps_all_its_kernels_but_the_first()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { ReusePrefixes = false });
        GpuBackend gpu = model.Gpu();
        // The prompt's step, a step as it is written, a step that is recorded: what is launched for the last two is the same.
        var request = PromptRequest.Raw("x");
        await model.AnswerAsync(request, Fixture.Greedy with { MaxNewTokens = 1, LogProbs = false });
        (long launches, long overlapped) = await CountAsync(1);
        (long withStep, long overlappedStep) = await CountAsync(2);
        long kernels = withStep - launches; // of a decoding step and its sampling
        Assert.Equal(0, gpu.ReplayedSteps);
        Assert.True(kernels > 10, $"{kernels} kernels");
        Assert.Equal(kernels - 1, overlappedStep - overlapped); // sampling follows directly
        (long recorded, long overlappedRecorded) = await CountAsync(2);
        Assert.Equal(1, gpu.ReplayedSteps);
        Assert.Equal(kernels, recorded - launches);
        Assert.Equal(kernels - 2, overlappedRecorded - overlapped); // the recording's first, and sampling behind the replay

        async Task<(long Launches, long Overlapped)> CountAsync(int tokens)
        {
            (long l, long o) = (Emulator.Counter("launch"), Emulator.Counter("overlapped_launch"));
            await model.AnswerAsync(request, Fixture.Greedy with { MaxNewTokens = tokens, LogProbs = false });
            return (Emulator.Counter("launch") - l, Emulator.Counter("overlapped_launch") - o);
        }
    }

    [Fact]
    public async Task Before_Hopper_no_kernel_begins_early()
    {
        Emulator.Configure("capability", "8.9");
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda());
        await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy);
        Assert.Equal(0, Emulator.Counter("overlapped_launch"));
    }

    [Fact]
    public async Task Once_loaded_one_thread_drives_the_device()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { MaxSequences = 4 });
        await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy);
        GpuStream stream = model.Gpu().Stream;
        long before = stream.ThreadChanges;
        await Task.WhenAll(Enumerable.Range(0, 6).Select(i => Task.Run(() => model.AnswerAsync(i % 2 == 0 ? Fixture.WithPicture($"question {i}") : PromptRequest.Raw($"text {i}"), Fixture.Greedy))));
        Assert.Equal(before, stream.ThreadChanges);
        await model.DumpAsync(PromptRequest.Raw("x"), Fixture.Greedy, DumpTensors.All, Path.Combine(_scratch, "x.safetensors"));
        Assert.True(stream.ThreadChanges > before, "a dump computes on its caller's thread, and that must show");
    }

    [Fact]
    public async Task Weights_pictures_and_steps_go_over_the_copy_stream()
    {
        await using ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda());
        Assert.Equal(2, Emulator.Counter("live_streams"));
        await model.AnswerAsync(Fixture.WithPicture(), Fixture.Greedy);
        Assert.Equal(0, Emulator.Counter("pageable_copy")); // everything is page-locked
    }

    private static long Overlapped(params Action[] work)
    {
        long before = Emulator.Counter("overlapped_launch");
        foreach (Action one in work) one();
        return Emulator.Counter("overlapped_launch") - before;
    }

    private static GpuKernels Kernels(GpuBackend gpu)
    {
        var shape = new KernelShape(DType.Float32, 8, 4, 4, 16, 1, false, 90);
        return new GpuKernels(gpu.Stream, shape, shape.All(), gpu.Compiler.Build(shape.All()), [], gpu.Compiler.Rebuild);
    }

    private sealed class Nobody : IGpuObserver
    {
        public void Before(string name, long bytes, long flops, CudaStream stream) { }

        public void After(CudaStream stream) { }
    }
}
