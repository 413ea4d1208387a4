using ConvLLaVA.Engine;
using Xunit;

namespace ConvLLaVA.Cuda.Tests;

/// <summary>What the backend asks before it takes a device.</summary>
[Collection("fake driver")]
public sealed class AvailabilityTests
{
    [Fact]
    public void The_machine_of_this_process()
    {
        FakeLibraries.Need();
        CudaAvailability found = CudaAvailability.Probe(needsCompiler: false);
        Assert.True(found.IsUsable, found.Reason);
        Assert.Null(found.Failure);
        Assert.Equal("Fake GPU 0", Assert.Single(found.Usable).Name);
        Assert.Contains("Fake GPU 0", DeviceChoice.Auto(found).Reason);
    }

    [Fact]
    public void A_failure_says_where_to_read_on()
    {
        var none = new CudaAvailability([], [], "NVIDIA's driver (libcuda.so.1) finds no GPU.");
        Assert.Equal("No GPU can be used: NVIDIA's driver (libcuda.so.1) finds no GPU. 'convllava doctor' lists every place that was looked at.", none.Failure);
        Assert.Equal(("cpu", none.Reason), (DeviceChoice.Auto(none).Backend, DeviceChoice.Auto(none).Reason));
    }

    [Theory]
    [InlineData("CuDriver.cuMemAlloc_v2(&address, (nuint)bytes)", "cuMemAlloc_v2")]
    [InlineData("CublasLtApi.cublasLtCreate(&created)", "cublasLtCreate")]
    [InlineData("cuModuleLoadDataEx", "cuModuleLoadDataEx")]
    public void The_name_of_a_call_is_read_from_its_source(string source, string name) => Assert.Equal(name, Check.CallName(source));

    [Theory]
    [InlineData(CuResult.IllegalAddress, true)]
    [InlineData(CuResult.LaunchFailed, true)]
    [InlineData(CuResult.EccUncorrectable, true)]
    [InlineData(CuResult.OutOfMemory, false)]
    [InlineData(CuResult.InvalidValue, false)]
    [InlineData(CuResult.NotReady, false)]
    public void Some_errors_end_a_context(CuResult result, bool sticky) => Assert.Equal(sticky, CudaException.IsStickyResult(result));
}
