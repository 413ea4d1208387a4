using System.Runtime.CompilerServices;
using Xunit;
using static ConvLLaVA.Cuda.Tests.FakeLibraries;

namespace ConvLLaVA.Cuda.Tests;

/// <summary>Who gives handles back, when, and on which thread, against a driver that keeps books.</summary>
[Collection("fake driver")]
public sealed unsafe class OwnershipTests : IDisposable
{
    private static readonly byte[] Image = [1, 2, 3];

    public OwnershipTests() => Need();

    /// <summary>After every test nothing is alive and no call was made that the real driver would refuse.</summary>
    public void Dispose()
    {
        if (Missing is not null) return;
        GC.Collect();
        GC.WaitForPendingFinalizers();
        using (new CudaContext(CudaDevice.Get(0))) { } // drains what finalizers left
        new MatmulPreference(0).Dispose();
        foreach (Kind kind in Enum.GetValues<Kind>()) Assert.True(Live(kind) == 0, $"{Live(kind)} of {kind} are alive");
        AssertNoViolation();
    }

    private static List<CudaHandle> OneOfEach(CudaContext context)
    {
        var stream = new CudaStream(context);
        stream.BeginCapture();
        CudaGraph graph = stream.EndCapture();
        CudaGraphExec executable = graph.Instantiate();
        return [stream, graph, executable, new CudaEvent(context), new CudaModule(context, Image), new DeviceBuffer(context, 100), new PinnedBuffer(context, 200), new CublasLtHandle(context)];
    }

    [Fact]
    public void Everything_is_given_back()
    {
        using var context = new CudaContext(CudaDevice.Get(0));
        int forgotten = context.ForgottenHandles;
        Assert.Equal(1, Live(Kind.Context));
        List<CudaHandle> all = OneOfEach(context);
        Assert.Equal((1, 1, 1, 1), (Live(Kind.Stream), Live(Kind.Graph), Live(Kind.Exec), Live(Kind.Module)));
        all.ForEach(handle => handle.Dispose());
        all.ForEach(handle => handle.Dispose()); // again
        Assert.All(all, handle => Assert.Throws<ObjectDisposedException>(() => handle.Handle));
        Assert.Equal(forgotten, context.ForgottenHandles);
    }

    [Fact]
    public void The_context_may_be_disposed_first()
    {
        var context = new CudaContext(CudaDevice.Get(0));
        List<CudaHandle> all = OneOfEach(context);
        context.Dispose();
        Assert.Equal(1, Live(Kind.Context)); // its children still need it
        Assert.Throws<ObjectDisposedException>(() => new DeviceBuffer(context, 1));
        all.ForEach(handle => handle.Dispose());
        Assert.Equal(0, Live(Kind.Context));
    }

    [Fact]
    public void Dispose_works_on_a_thread_without_context()
    {
        using var context = new CudaContext(CudaDevice.Get(0));
        List<CudaHandle> all = OneOfEach(context);
        var thread = new Thread(() => all.ForEach(handle => handle.Dispose()));
        thread.Start();
        thread.Join();
        Assert.Equal(0, Live(Kind.DeviceMemory));
    }

    [Fact]
    public void What_is_forgotten_waits_for_the_owners_thread()
    {
        using var context = new CudaContext(CudaDevice.Get(0));
        int before = context.ForgottenHandles;
        Forget(context);
        Collect();
        Assert.Equal(8, context.ForgottenHandles - before);
        Assert.Equal(1, Live(Kind.Stream)); // no finalizer has called the driver
        Assert.Equal((1, 100L), (context.DeviceMemory.Live, context.DeviceMemory.Bytes));
        Assert.Equal(8, context.DrainReclaimed());
        Assert.Equal(0, context.DrainReclaimed());
        Assert.Equal(0, Live(Kind.Stream));
        Assert.Equal((0, 0L), (context.DeviceMemory.Live, context.DeviceMemory.Bytes));
    }

    [Fact]
    public void A_forgotten_context_is_released_by_the_next_one()
    {
        ForgetWithContext();
        Collect();
        Assert.Equal(1, Live(Kind.Context));
        using var next = new CudaContext(CudaDevice.Get(0));
        Assert.Equal(0, Live(Kind.Stream));
        Assert.Equal(1, Live(Kind.Context));
    }

    [Fact]
    public void A_disposed_context_with_a_forgotten_child_is_not_released_by_the_finalizer()
    {
        var context = new CudaContext(CudaDevice.Get(0));
        Forget(context);
        context.Dispose();
        Collect();
        Assert.Equal(1, Live(Kind.Context));
        using var next = new CudaContext(CudaDevice.Get(0));
        Assert.Equal(1, Live(Kind.Context));
    }

    [Fact]
    public void Descriptors_need_no_context()
    {
        using (var descriptor = new MatmulDescriptor(CublasComputeType.Compute32F, CudaDataType.R32F) { TransA = CublasOperation.T, Epilogue = CublasLtEpilogue.GeluBias, Bias = 0x100 })
        using (var layout = new MatrixLayout(CudaDataType.R16BF, 4, 5, 4) { Order = CublasLtOrder.Row })
        {
            layout.SetBatch(2, 20);
            Assert.Equal((1, 1), (Live(Kind.Descriptor), Live(Kind.Layout)));
        }
        ForgetDescriptor();
        Collect();
        Assert.Equal(1, Live(Kind.Descriptor));
        new MatmulDescriptor(CublasComputeType.Compute32F, CudaDataType.R32F).Dispose();
        Assert.Equal(0, Live(Kind.Descriptor));
    }

    [Fact]
    public void A_plan_that_fits_nothing_leaves_nothing_behind()
    {
        using var context = new CudaContext(CudaDevice.Get(0));
        using var handle = new CublasLtHandle(context);
        using var preference = new MatmulPreference(1 << 20) { ReductionSchemes = CublasLtReductionScheme.None };
        preference.SetAlignment(16, 16, 16, 16);
        CudaException error = Assert.Throws<CudaException>(() => MatmulPlan.Create(handle, new MatmulDescriptor(CublasComputeType.Compute32F, CudaDataType.R32F),
            new MatrixLayout(CudaDataType.R16F, 8, 8, 8), new MatrixLayout(CudaDataType.R16F, 8, 8, 8), new MatrixLayout(CudaDataType.R16F, 8, 8, 8), new MatrixLayout(CudaDataType.R16F, 8, 8, 8), preference));
        Assert.Equal(CublasStatus.NotSupported, error.CublasResult);
        Assert.Contains("cublasLtMatmulAlgoGetHeuristic", error.Message);
        Assert.Equal((0, 0), (Live(Kind.Descriptor), Live(Kind.Layout)));
    }

    [Fact]
    public void Memory_is_counted()
    {
        using var context = new CudaContext(CudaDevice.Get(0));
        using (var a = new DeviceBuffer(context, 1000))
        using (var b = new DeviceBuffer(context, 24))
        {
            Assert.NotEqual(a.Address, b.Address);
            Assert.Equal((2, 1024L, 2), (context.DeviceMemory.Live, context.DeviceMemory.Bytes, context.DeviceMemory.Calls));
        }
        Assert.Equal((0, 0L, 2), (context.DeviceMemory.Live, context.DeviceMemory.Bytes, context.DeviceMemory.Calls));
        using (var pinned = new PinnedBuffer(context, 64))
        {
            Span<int> values = pinned.Span<int>(8, 14);
            values.Fill(7);
            Assert.Equal(7, ((int*)pinned.Pointer)[15]);
            Assert.Throws<ArgumentOutOfRangeException>(() => pinned.Span<int>(8, 15).Length);
            Assert.Equal(64, context.PinnedMemory.Bytes);
        }
        int* own = stackalloc int[4];
        using (new PinnedRegistration(context, own, 16)) Assert.Equal((1, 16L), (Live(Kind.Registered), context.PinnedMemory.Bytes));
        Assert.Equal(0, context.PinnedMemory.Bytes);
        Assert.Equal((7L << 30, 8L << 30), context.MemoryInfo);
    }

    [Fact]
    public void Arguments_arrive_as_they_were_added()
    {
        using var context = new CudaContext(CudaDevice.Get(0));
        using var stream = new CudaStream(context);
        using var module = new CudaModule(context, Image);
        CudaFunction function = module.GetFunction("scale");
        var arguments = new KernelArguments();
        arguments.Add(0x1122334455667788ul);
        arguments.Add(3.5f);
        arguments.Add((short)-2);
        arguments.Add(new Dim3(5u, 6u, 7u)); // twelve bytes: two words
        arguments.Add(9);
        Assert.Equal(5, arguments.Count);
        function.Launch(stream, new Dim3(5), new Dim3(32), 0, ref arguments);
        Assert.Equal(0x1122334455667788ul, Argument(0));
        Assert.Equal(3.5f, BitConverter.UInt32BitsToSingle((uint)Argument(1)));
        Assert.Equal(-2, (short)Argument(2));
        Assert.Equal(5u | (6ul << 32), Argument(3));
        Assert.Equal(9u, (uint)Argument(4));
    }

    [Fact]
    public void Errors_say_what_was_attempted()
    {
        using var context = new CudaContext(CudaDevice.Get(0));
        using var stream = new CudaStream(context);
        using var module = new CudaModule(context, Image);
        using var happening = new CudaEvent(context);
        CudaException memory = Assert.Throws<CudaException>(() => new DeviceBuffer(context, 1L << 40));
        Assert.Equal($"cuMemAlloc_v2 failed with CUDA_ERROR_OUT_OF_MEMORY (2): out of memory ({1L << 40} bytes asked for).", memory.Message);
        Assert.True(memory.IsOutOfMemory && !memory.IsSticky);
        CudaException missing = Assert.Throws<CudaException>(() => module.GetFunction("missing"));
        Assert.Equal((500, "CUDA_ERROR_NOT_FOUND"), (missing.ResultCode, missing.ResultName)); // named by us where the driver has no name
        Assert.Contains("missing", missing.Message);
        CudaException launch = Assert.Throws<CudaException>(() => module.GetFunction("big").Launch(stream, new Dim3(2, 3), new Dim3(2048), 64, null));
        Assert.Contains("kernel big, grid 2x3x1, block 2048x1x1, 64 bytes of dynamic shared memory", launch.Message);
        CudaException image = Assert.Throws<CudaException>(() => new CudaModule(context, "bad"u8));
        Assert.Contains("ptxas fatal: line 1", image.Message);
        Assert.Equal("cuModuleLoadDataEx", image.Call);
        CudaException sticky = Assert.Throws<CudaException>(() => happening.Record(stream));
        Assert.True(sticky.IsSticky);
        Assert.Equal((CuResult.IllegalAddress, "cuEventRecord"), (sticky.DriverResult, sticky.Call));
        Assert.False(stream.IsIdle);
        Assert.Throws<CudaException>(() => CudaDevice.Get(7));
        Assert.Throws<CudaException>(() => module.GetFunction("f").MaxDynamicSharedBytes = 1 << 20);
        stream.BeginCapture();
        using CudaGraph graph = stream.EndCapture();
        using CudaGraphExec executable = graph.Instantiate();
        Assert.Equal(3, graph.NodeCount);
        Assert.False(executable.TryUpdate(graph, out CuGraphExecUpdateResult reason));
        Assert.Equal(CuGraphExecUpdateResult.ErrorTopologyChanged, reason);
        Assert.ThrowsAny<CudaException>(() => new MatmulDescriptor(CublasComputeType.Compute16F, CudaDataType.R32F));
    }

    [Fact]
    public void A_device_describes_itself()
    {
        CudaDevice device = Assert.Single(CudaDevice.All());
        Assert.Equal(("Fake GPU 0", 90, 132, 8L << 30, 232448), (device.Name, device.Architecture, device.MultiprocessorCount, device.TotalMemory, device.MaxSharedMemoryPerBlock));
        Assert.Equal("GPU-00112233-4455-6677-8899-aabbccddeeff", device.Uuid);
        Assert.Equal(new Version(13, 0), CudaDevice.DriverVersion);
        Assert.Equal(new Version(13, 1, 0), CublasLtHandle.Version);
        Assert.False(CudaLibraries.IsEmulated);
    }

    [Fact]
    public void A_kernel_of_an_unloaded_module_cannot_be_used()
    {
        using var context = new CudaContext(CudaDevice.Get(0));
        var module = new CudaModule(context, Image);
        CudaFunction function = module.GetFunction("f");
        Assert.Equal((int)CuFunctionAttribute.NumRegs, function.Registers);
        module.Dispose();
        Assert.Throws<ObjectDisposedException>(() => function.Registers);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Forget(CudaContext context) => OneOfEach(context);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void ForgetWithContext()
    {
        var thread = new Thread(() => OneOfEach(new CudaContext(CudaDevice.Get(0))));
        thread.Start();
        thread.Join();
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void ForgetDescriptor() => _ = new MatmulDescriptor(CublasComputeType.Compute32F, CudaDataType.R32F);

    private static void Collect()
    {
        for (int i = 0; i < 2; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
    }
}
