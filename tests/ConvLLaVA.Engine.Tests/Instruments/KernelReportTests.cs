using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Instruments;

/// <summary>What <c>kernels build --report</c> derives from the compiler's log, machine code and the model's sizes.</summary>
public sealed class KernelReportTests
{
    private const string Log = """
        ptxas info    : 0 bytes gmem
        ptxas info    : Compiling entry function 'first' for 'sm_90a'
        ptxas info    : Function properties for first
            0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
        ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem
        ptxas info    : Compile time = 10.2 ms
        ptxas info    : Compiling entry function 'second' for 'sm_90a'
        ptxas info    : Function properties for second
            96 bytes stack frame, 120 bytes spill stores, 88 bytes spill loads
        ptxas info    : Used 255 registers, 96 bytes cumulative stack size
        """;

    [Fact]
    public void TheLog_IsReadKernelByKernel()
        => Assert.Equal([new PtxasReport("first", 40, 1024, 0, 0, 0), new PtxasReport("second", 255, 0, 96, 120, 88)], PtxasReport.Parse(Log));

    [Theory]
    [InlineData("")]
    [InlineData("warning: something else\nUsed 12 registers")]
    public void ALogWithoutKernels_GivesNone(string log) => Assert.Empty(PtxasReport.Parse(log));

    [Theory]
    [InlineData(80, 256, 32, 0, 8)] // warps: 64 / 8
    [InlineData(80, 256, 64, 0, 4)] // registers: 65536 / (64 * 256)
    [InlineData(80, 256, 65, 0, 3)] // given out by 8 registers a thread
    [InlineData(80, 128, 32, 69632, 2)] // shared memory: 164 KiB over 68 KiB and 1 KiB
    [InlineData(90, 128, 32, 69632, 3)]
    [InlineData(75, 256, 32, 0, 4)] // Turing has 32 warps
    [InlineData(89, 256, 32, 0, 6)] // 48 warps
    [InlineData(90, 32, 16, 0, 32)] // blocks
    [InlineData(90, 1024, 64, 0, 1)]
    [InlineData(80, 1024, 255, 0, 0)] // does not fit at all
    public void BlocksOfAMultiprocessor_AreNvidias(int architecture, int threads, int registers, int shared, int blocks)
        => Assert.Equal(blocks, Multiprocessor.BlocksOf(architecture, threads, registers, shared));

    [Theory]
    [InlineData(75, 65536, 32)]
    [InlineData(80, 166912, 64)]
    [InlineData(86, 101376, 32)]
    [InlineData(89, 101376, 32)]
    [InlineData(90, 232448, 64)]
    [InlineData(120, 101376, 32)]
    public void AttentionTiles_LeaveRoomForTwoBlocks(int architecture, int largestBlock, int keyTile)
    {
        Assert.Equal(largestBlock, Multiprocessor.Of(architecture).LargestBlockBytes); // as NVIDIA's programming guide has it
        Assert.Equal(keyTile, new KernelShape(DType.Float16, 128, 32, 32, 16, 16, false, architecture).KeyTile);
        Assert.Equal(64, new KernelShape(DType.Float16, 48, 4, 4, 16, 16, false, architecture).KeyTile);
    }

    [Fact]
    public void CodeThatIsNone_HasNoBounds()
    {
        Assert.Empty(CubinLaunchBounds.Read([]));
        Assert.Empty(CubinLaunchBounds.Read(new byte[500]));
        var random = new Random(1);
        for (int i = 0; i < 2000; i++)
        {
            byte[] bytes = new byte[random.Next(64, 400)];
            random.NextBytes(bytes);
            "\x7f\x45\x4c\x46\x02"u8.CopyTo(bytes);
            if (i % 2 == 0)
            {
                BitConverter.TryWriteBytes(bytes.AsSpan(40), (long)64); // a section table that may be in the file
                BitConverter.TryWriteBytes(bytes.AsSpan(58), (short)64);
                BitConverter.TryWriteBytes(bytes.AsSpan(60), (short)2);
                BitConverter.TryWriteBytes(bytes.AsSpan(62), (short)1);
            }
            CubinLaunchBounds.Read(bytes); // must not throw
        }
    }

    [Fact]
    public void TheWorkOfADecodingStep_IsItsWeightsAndPages()
    {
        var workload = new KernelWorkload("synth:7b-1536", DType.BFloat16);
        var shape = new KernelShape(DType.BFloat16, 128, 32, 32, 16, 16, false, 90);
        long weights = 0;
        foreach (KernelSpec spec in (KernelSpec[])[shape.GemvQkv(1), shape.Gemv(1, false, GemvEpilogue.Add), shape.Gemv(1, true, GemvEpilogue.SwiGlu), shape.Gemv(1, false, GemvEpilogue.Logits)])
            weights += workload.Of(spec, Path.GetFileNameWithoutExtension(spec.File))!.Bytes;
        // All weights of the decoder but its norms and the embedding table, in 16 bits.
        Assert.Equal(2 * (6_738_415_616 - (65L * 4096) - (32000L * 4096)), weights);
        KernelWork attention = workload.Of(shape.DecodeAttention, "attention_decode")!;
        Assert.Equal(32, attention.Launches);
        Assert.InRange(attention.Bytes, 701L * 524_288, 702L * 524_288);
        Assert.Equal(42, workload.Of(shape.DepthwiseNorm(6), "depthwise_norm")!.Launches);
        Assert.Null(workload.Of(shape.DecodeAttention, "attention_combine"));
    }

    /// <summary>The matrices of a layer of 7B as they are multiplied. [out, in]</summary>
    private static readonly (long Out, long In)[] Layer = [(3 * 4096, 4096), (4096, 4096), (2 * 11008, 4096), (4096, 11008)];

    [Theory]
    [InlineData(QuantFormat.Q8, 2, 2, 32)] // half bytes of a code; bytes of a scale; weights of it, 0 for a row
    [InlineData(QuantFormat.Q8Row, 2, 4, 0)]
    [InlineData(QuantFormat.Q4, 1, 2, 32)]
    [InlineData(QuantFormat.Q4Group128, 1, 2, 128)]
    [InlineData(QuantFormat.Fp8, 2, 4, 0)]
    [InlineData(QuantFormat.Nf4, 1, 4, 64)]
    [InlineData(QuantFormat.Int8, 2, 4, 0)]
    public void TheWorkOnQuantisedWeights_IsTheirCodesAndScales(QuantFormat format, int halves, int scaleBytes, int group)
    {
        var workload = new KernelWorkload("synth:7b-1536", DType.BFloat16, new QuantOptions(format));
        var shape = new KernelShape(DType.BFloat16, 128, 32, 32, 16, 16, false, 90);
        int form = KernelWeights.Of(format);
        foreach (int rows in shape.GemvRows)
        {
            KernelWork?[] works = [.. shape.Products(form).Where(product => product.Rows == rows && product.Epilogue != GemvEpilogue.Logits).Select(Of)];
            Assert.Equal(32 * Layer.Sum(matrix => Bytes(matrix.Out, matrix.In)), works.Sum(work => work!.Bytes));
            Assert.Equal(32 * rows * Layer.Sum(matrix => 2 * matrix.Out * matrix.In), works.Sum(work => work!.Flops));
            Assert.Equal(32 * 4, works.Sum(work => work!.Launches));
        }
        // The head stays in 16 bits, and everything in 16 bits but the head is left without work.
        Assert.Equal([GemvEpilogue.Logits], shape.Products(KernelWeights.Stored).Where(product => product.Rows == 1 && Of(product) is not null).Select(product => product.Epilogue));
        Assert.Equal(2 * 32000L * 4096, Of(shape.Products(KernelWeights.Stored).First(product => product.Epilogue == GemvEpilogue.Logits))!.Bytes);
        Assert.Null(Of(shape.Products(form).First(product => product.Epilogue == GemvEpilogue.Logits)));
        // A picture meets the projector's two matrices, a prompt the layers': tiles of 64 MiB, 2 + 1 + 3 + 2 of them a layer.
        (long Out, long In)[] dequantised = [(4096, 3072), (4096, 4096), .. Enumerable.Repeat(Layer, 32).SelectMany(layer => layer)];
        KernelWork many = workload.Of(shape.Dequantise(form), "dequantise")!;
        Assert.Equal(("picture + prompt of 636", 2 + 32 * 8), (many.What, many.Launches));
        Assert.Equal(dequantised.Sum(matrix => Bytes(matrix.Out, matrix.In) + 2 * matrix.Out * matrix.In), many.Bytes);
        Assert.Equal(dequantised.Sum(matrix => 2 * matrix.Out * matrix.In), many.Flops);

        KernelWork? Of(ProductKernel product) => workload.Of(product.Spec, Path.GetFileNameWithoutExtension(product.Spec.File));
        long Bytes(long outFeatures, long inFeatures) => outFeatures * inFeatures * halves / 2 + outFeatures * (group == 0 ? 1 : inFeatures / group) * scaleBytes;
    }

    [Fact]
    public void AQuantisedHead_HasWorkOfItsOwn()
    {
        var workload = new KernelWorkload("synth:7b-1536", DType.BFloat16, new QuantOptions(QuantFormat.Q4, LmHead: true));
        var shape = new KernelShape(DType.BFloat16, 128, 32, 32, 16, 16, false, 90);
        Assert.Equal(32000L * 4096 / 2 + 32000L * 4096 / 32 * 2, workload.Of(shape.Gemv(1, false, GemvEpilogue.Logits, KernelWeights.Of(QuantFormat.Q4)), "gemv")!.Bytes);
        Assert.Null(workload.Of(shape.Gemv(1, false, GemvEpilogue.Logits), "gemv"));
    }

    [Fact]
    public void APassOfGelu_CountsWhatItsKernelSays()
    {
        KernelWork work = new KernelWorkload("synth:7b-1536", DType.BFloat16).Of(new KernelShape(DType.BFloat16, 128, 32, 32, 16, 16, false, 90).Plain("bias_activation.cu", "ACTIVATION=1"), "bias_activation")!;
        Assert.Equal(2 * 2 * work.Flops, work.Bytes * GpuKernels.GeluFlops); // two elements of two bytes a value
        Assert.Contains($"Flops: {GpuKernels.GeluFlops} an element", new KernelSources().Text("bias_activation.cu"), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a100")]
    [InlineData("h100")]
    [InlineData("h200")]
    [InlineData("rtx4090")]
    public void EveryGpu_BoundsByTheSlowerOfBytesAndFlops(string name)
    {
        DatasheetGpu gpu = DatasheetGpu.Get(name);
        Assert.Equal(1, gpu.LeastMilliseconds((long)(gpu.GigabytesPerSecond * 1e6), 1, true), 3);
        Assert.Equal(1, gpu.LeastMilliseconds(1, (long)(gpu.TensorTeraflops * 1e9), true), 3);
        Assert.True(gpu.LeastMilliseconds(1, 1L << 40, false) > gpu.LeastMilliseconds(1, 1L << 40, true));
    }
}
