using ConvLLaVA.Cuda;
using Xunit;

namespace ConvLLaVA.Kernels.Tests;

/// <summary>The emulated driver through the engine's own bindings: limits, deferred work, graphs, injected faults. What it refuses call
/// by call is held by its self-test (<see cref="EmulatorBuildTests"/>).</summary>
public sealed unsafe class DriverTests
{
    private const string Source = """
        #include "device.cuh"
        KERNEL(32, 1) add(float* y, float term) { y[threadIdx.x] += term; }
        """;

    private static byte[] Image(CudaDevice device) => NvrtcCompiler.Compile(Source, "add.cu", [], NvrtcCompiler.TargetFor(device)).Bytes;

    /// <summary>Runs alone on the device with a context and stream of its own; <paramref name="breaks"/>: the device is in error afterwards.</summary>
    private static void OnDevice(Action<CudaContext, CudaStream> body, bool breaks = false)
    {
        void Run() => EmulatedDevice.Run(_ =>
        {
            using var context = new CudaContext(CudaDevice.Get(0));
            context.MakeCurrent();
            using var stream = new CudaStream(context);
            body(context, stream);
            if (breaks) context.Synchronize();
            return 0;
        });
        if (breaks) Assert.Throws<EmulatorReportException>(Run);
        else Run();
    }

    [Fact]
    public void Memory_ends_where_the_limit_says_and_is_given_back() => OnDevice((context, _) =>
    {
        long before = Emulator.Count("live_bytes");
        Emulator.Configure("memory", "64M");
        try
        {
            using (var half = new DeviceBuffer(context, 40L << 20))
            {
                var error = Assert.Throws<CudaException>(() => new DeviceBuffer(context, 40L << 20));
                Assert.True(error.IsOutOfMemory);
                Assert.False(error.IsSticky);
                Assert.Equal(64L << 20, context.MemoryInfo.Total);
                Assert.True(context.MemoryInfo.Free < 24L << 20 | context.MemoryInfo.Free == 24L << 20);
            }
            using var again = new DeviceBuffer(context, 40L << 20);
        }
        finally
        {
            Emulator.Configure("memory", "8G");
        }
        Assert.Equal(before, Emulator.Count("live_bytes"));
    });

    [Fact]
    public void A_copy_to_pinned_memory_is_there_only_after_waiting() => OnDevice((context, stream) =>
    {
        using var device = new DeviceBuffer(context, 64);
        using var pinned = new PinnedBuffer(context, 64);
        stream.Fill(device.Address, 7, 64);
        pinned.Span<byte>(0, 64).Fill(1);
        stream.CopyToHost(pinned.Pointer, device.Address, 64);
        Assert.Equal(0xff, pinned.Span<byte>(0, 64)[63]);
        stream.Synchronize();
        Assert.Equal(7, pinned.Span<byte>(0, 64)[63]);
    });

    [Fact]
    public void Streams_that_nothing_orders_are_reported() => OnDevice((context, stream) =>
    {
        using var other = new CudaStream(context);
        using var device = new DeviceBuffer(context, 64);
        using var pinned = new PinnedBuffer(context, 64);
        using var happened = new CudaEvent(context);
        stream.Fill(device.Address, 7, 64);
        happened.Record(stream);
        other.Wait(happened);
        other.CopyToHost(pinned.Pointer, device.Address, 64);
        other.Synchronize();
        Assert.Equal(7, pinned.Span<byte>(0, 64)[0]);
        stream.Fill(device.Address, 8, 64);
        other.CopyToHost(pinned.Pointer, device.Address, 64);
        Assert.True(Assert.Throws<CudaException>(other.Synchronize).IsSticky);
        Assert.Contains("no event or wait orders the two", Emulator.LastReport(), StringComparison.Ordinal);
    }, breaks: true);

    [Theory]
    [InlineData("lazy")]
    [InlineData("eager")]
    [InlineData("random:3")]
    public void A_graph_replays_takes_new_arguments_and_refuses_another_shape(string order) => OnDevice((context, stream) =>
    {
        Emulator.Configure("streams", order);
        try
        {
            using var module = new CudaModule(context, Image(context.Device));
            CudaFunction add = module.GetFunction("add");
            using var device = new DeviceBuffer(context, 128);
            using var pinned = new PinnedBuffer(context, 128);
            using CudaGraph three = Record(3), hundred = Record(100);
            stream.BeginCapture();
            Add(1);
            using CudaGraph shorter = stream.EndCapture();
            Assert.Equal(3, three.NodeCount);
            using CudaGraphExec executable = three.Instantiate();
            Span<float> values = pinned.Span<float>(0, 32);
            values.Fill(1);
            long launches = Emulator.Count("launch");
            executable.Launch(stream);
            executable.Launch(stream);
            stream.Synchronize();
            Assert.Equal(7, values[31]);
            Assert.True(executable.TryUpdate(hundred, out _));
            executable.Launch(stream);
            stream.Synchronize();
            Assert.Equal(107, values[0]);
            Assert.False(executable.TryUpdate(shorter, out CuGraphExecUpdateResult reason));
            Assert.Equal(CuGraphExecUpdateResult.ErrorTopologyChanged, reason);
            Assert.Equal(launches, Emulator.Count("launch"));

            CudaGraph Record(float term)
            {
                stream.BeginCapture();
                stream.CopyToDevice(device.Address, pinned.Pointer, 128);
                Add(term);
                stream.CopyToHost(pinned.Pointer, device.Address, 128);
                return stream.EndCapture();
            }

            void Add(float term)
            {
                var arguments = default(KernelArguments);
                arguments.Add(device.Address);
                arguments.Add(term);
                add.Launch(stream, new Dim3(1), new Dim3(32), 0, ref arguments);
            }
        }
        finally
        {
            Emulator.Configure("streams", "lazy");
        }
    });

    [Fact]
    public void An_allocation_while_a_stream_is_captured_is_refused_and_ends_the_capture() => OnDevice((context, stream) =>
    {
        stream.BeginCapture();
        var error = Assert.Throws<CudaException>(() => new DeviceBuffer(context, 64));
        Assert.Equal(CuResult.StreamCaptureUnsupported, error.DriverResult);
        Assert.Equal(CuStreamCaptureStatus.Invalidated, stream.CaptureStatus);
        stream.AbandonCapture();
        Assert.Equal(CuStreamCaptureStatus.None, stream.CaptureStatus);
        using var buffer = new DeviceBuffer(context, 64);
    });

    [Fact]
    public void Faults_come_at_the_call_they_are_asked_for() => OnDevice((context, stream) =>
    {
        Emulator.Inject("alloc:2,host_alloc:1");
        using var first = new DeviceBuffer(context, 64);
        Assert.True(Assert.Throws<CudaException>(() => new DeviceBuffer(context, 64)).IsOutOfMemory);
        using var third = new DeviceBuffer(context, 64);
        Assert.Throws<CudaException>(() => new PinnedBuffer(context, 64));

        Emulator.Inject("compile:1", CudaLibrary.Nvrtc);
        Assert.Throws<NvrtcCompilationException>(() => Image(context.Device));

        using var module = new CudaModule(context, Image(context.Device));
        CudaFunction add = module.GetFunction("add");
        stream.Fill(first.Address, 0, 64);
        Emulator.Inject("kernel:1");
        var arguments = default(KernelArguments);
        arguments.Add(first.Address);
        arguments.Add(1f);
        add.Launch(stream, new Dim3(1), new Dim3(16), 0, ref arguments);  // the fault is the device's: the launch itself succeeds
        var error = Assert.Throws<CudaException>(stream.Synchronize);
        Assert.Equal(CuResult.IllegalAddress, error.DriverResult);
        Assert.True(error.IsSticky);
        Assert.Throws<CudaException>(() => new DeviceBuffer(context, 64));
    }, breaks: true);

    [Fact]
    public void A_kernel_that_writes_past_its_memory_is_reported_with_its_line()
    {
        var error = Assert.Throws<EmulatorReportException>(() => EmulatedDevice.Run(_ =>
        {
            using var context = new CudaContext(CudaDevice.Get(0));
            context.MakeCurrent();
            using var stream = new CudaStream(context);
            const string source = """
                #include "device.cuh"
                KERNEL(32, 1) far(float* y, int offset) {
                    y[threadIdx.x + offset] = 1.0f;
                }
                """;
            using var module = new CudaModule(context, NvrtcCompiler.Compile(source, "far.cu", [], NvrtcCompiler.TargetFor(context.Device)).Bytes);
            using var device = new DeviceBuffer(context, 128);
            var arguments = default(KernelArguments);
            arguments.Add(device.Address);
            arguments.Add(1 << 16);
            module.GetFunction("far").Launch(stream, new Dim3(1), new Dim3(32), 0, ref arguments);
            stream.Synchronize();
            return 0;
        }));
        Assert.Contains("far.cu:3", error.Message, StringComparison.Ordinal);
        Assert.Contains("past the end of an allocation of 128", error.Message, StringComparison.Ordinal);
    }
}
