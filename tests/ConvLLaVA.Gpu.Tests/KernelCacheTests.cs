using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging.Abstractions;
using Xunit;

namespace ConvLLaVA.Gpu.Tests;

/// <summary>Compiling kernels and keeping them.</summary>
public sealed class KernelCacheTests : IDisposable
{
    private static readonly KernelSpec Silu = KernelSpec.Of("silu_multiply.cu", "STORAGE_F16=1");
    private readonly string _scratch = Directory.CreateTempSubdirectory("convllava-test-").FullName;

    public KernelCacheTests() => Emulator.Start();

    public void Dispose() => Directory.Delete(_scratch, true);

    private KernelCompiler Compiler(string cache, string? kernels = null)
        => new(new KernelSources(kernels), new KernelCache(Path.Combine(_scratch, cache)), 90, NullLogger.Instance);

    [Fact]
    public void What_is_compiled_once_is_found_the_next_time()
    {
        KernelCompiler first = Compiler("cache"), second = Compiler("cache");
        byte[] code = first.Build([Silu])[0];
        Assert.Equal((1, 0), (first.Compiled, first.Found));
        Assert.Equal(code, second.Build([Silu])[0]);
        Assert.Equal((0, 1), (second.Compiled, second.Found));
        Assert.Single(new DirectoryInfo(first.Cache.Folder).GetFiles()); // no temporary file stays
    }

    [Fact]
    public async Task The_first_start_says_that_it_compiles_and_the_second_does_not()
    {
        // A text that no compiler has seen: the emulated one keeps what it compiled, too, and is done before anybody looks.
        string kernels = Directory.CreateDirectory(Path.Combine(_scratch, "kernels")).FullName;
        File.WriteAllText(Path.Combine(kernels, "silu_multiply.cu"), $"{new KernelSources().Text("silu_multiply.cu")}\n// {Guid.NewGuid()}\n");
        LoadOptions options = Fixture.Cuda() with { MaxSequences = 1, KernelCache = Path.Combine(_scratch, "cache"), KernelFolder = kernels };
        var first = new Stages();
        var second = new Stages();
        await using (ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, options, first)) Assert.True(model.Gpu().Compiler.Compiled > 10);
        await using (ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, options, second)) Assert.Equal(0, model.Gpu().Compiler.Compiled);
        Assert.Contains("compiling kernels", first.Names);
        Assert.DoesNotContain("compiling kernels", second.Names);
        Assert.Contains("weights", second.Names);
        Assert.Equal(first.Fractions.Order(), first.Fractions); // never back
    }

    [Fact]
    public async Task Several_processes_may_write_and_read_one_folder()
    {
        byte[] code = new byte[200_000];
        new Random(1).NextBytes(code);
        string folder = Path.Combine(_scratch, "cache");
        await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(() =>
        {
            var cache = new KernelCache(folder); // as another process would have it
            for (int i = 0; i < 50; i++)
            {
                Assert.True(cache.Write("entry", code), cache.WriteProblem);
                Assert.Equal(code, cache.Read("entry"));
            }
            Assert.Equal(0, cache.Damaged);
        })));
        Assert.Single(Directory.GetFiles(folder));
    }

    [Theory]
    [InlineData(0)] // cut short
    [InlineData(100)]
    public void A_damaged_entry_is_compiled_again(int keep)
    {
        KernelCompiler first = Compiler("cache");
        byte[] code = first.Build([Silu])[0];
        string file = Directory.GetFiles(first.Cache.Folder).Single();
        byte[] bytes = File.ReadAllBytes(file);
        if (keep > 0) bytes[^1] ^= 1;
        File.WriteAllBytes(file, keep > 0 ? bytes : bytes[..20]);
        KernelCompiler second = Compiler("cache");
        Assert.Equal(code.Length, second.Build([Silu])[0].Length);
        Assert.Equal((1, 1), (second.Compiled, second.Cache.Damaged));
        KernelCompiler third = Compiler("cache");
        third.Build([Silu]);
        Assert.Equal(1, third.Found);
    }

    [Fact]
    public async Task An_entry_that_the_driver_does_not_take_is_compiled_again()
    {
        string folder = Path.Combine(_scratch, "cache");
        LoadOptions options = Fixture.Cuda() with { MaxSequences = 1, KernelCache = folder };
        Directory.CreateDirectory(folder);
        Directory.CreateDirectory(Emulator.KernelCache);
        foreach (string file in Directory.GetFiles(Emulator.KernelCache)) File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
        await using (ConvLlava model = await ConvLlava.LoadAsync(Fixture.Tiny, options)) { }
        var cache = new KernelCache(folder);
        foreach (string file in Directory.GetFiles(folder, "silu_multiply-*")) cache.Write(Path.GetFileName(file), new byte[5000]); // right sum, no code
        await using ConvLlava again = await ConvLlava.LoadAsync(Fixture.Tiny, options);
        Assert.Equal(1, again.Gpu().Compiler.Compiled);
    }

    [Fact]
    public void A_folder_that_cannot_be_written_is_no_obstacle()
    {
        File.WriteAllText(Path.Combine(_scratch, "file"), "");
        KernelCompiler compiler = Compiler(Path.Combine("file", "cache"));
        Assert.NotEmpty(compiler.Build([Silu])[0]);
        Assert.NotNull(compiler.Cache.WriteProblem);
    }

    [Fact]
    public void A_changed_kernel_or_constant_is_another_entry()
    {
        var embedded = new KernelSources();
        string stem = KernelCache.Stem(embedded, Silu, ["-DX=1"]);
        Assert.Equal(stem, KernelCache.Stem(new KernelSources(), Silu, ["-DX=1"]));
        Assert.NotEqual(stem, KernelCache.Stem(embedded, Silu, ["-DX=2"]));
        string folder = Path.Combine(_scratch, "kernels");
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "device.cuh"), embedded.Text("device.cuh") + "\n");
        Assert.NotEqual(stem, KernelCache.Stem(new KernelSources(folder), Silu, ["-DX=1"])); // an include changed
    }

    [Fact]
    public async Task A_mistake_in_an_overriding_kernel_is_shown_with_file_and_line()
    {
        string folder = Path.Combine(_scratch, "kernels");
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "silu_multiply.cu"), "#include \"device.cuh\"\n\nKERNEL(256, 4) silu_multiply(const storage* x) {\n    int y = \"text\";\n}\n");
        var error = await Assert.ThrowsAsync<InvalidInputException>(() => ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { KernelFolder = folder }));
        Assert.Contains(Path.Combine(folder, "silu_multiply.cu"), error.Message, StringComparison.Ordinal);
        Assert.Contains("4", error.Message[error.Message.IndexOf("silu_multiply.cu", StringComparison.Ordinal)..], StringComparison.Ordinal);
        Assert.Contains("error", error.Message, StringComparison.Ordinal);
        var missing = await Assert.ThrowsAsync<InvalidInputException>(() => ConvLlava.LoadAsync(Fixture.Tiny, Fixture.Cuda() with { KernelFolder = folder + "x" }));
        Assert.Contains(folder + "x", missing.Message, StringComparison.Ordinal);
    }

    private sealed class Stages : IProgress<LoadProgress>
    {
        public List<string> Names { get; } = [];

        public List<double> Fractions { get; } = [];

        public void Report(LoadProgress value)
        {
            Names.Add(value.Stage);
            Fractions.Add(value.Fraction);
        }
    }

    [Fact]
    public void Without_a_compiler_an_entry_of_any_version_serves()
    {
        var cache = new KernelCache(Path.Combine(_scratch, "cache"));
        byte[] old = [1, 2, 3], newer = [4, 5, 6];
        cache.Write(KernelCache.EntryName("a-0", "sm_90a", new Version(12, 9)), old);
        cache.Write(KernelCache.EntryName("a-0", "sm_90a", new Version(12, 10)), newer);
        Assert.Equal(newer, cache.ReadAny("a-0", "sm_90a"));
        Assert.Null(cache.ReadAny("a-0", "sm_80"));
    }
}
