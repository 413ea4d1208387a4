using ConvLLaVA.Engine.Cpu;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Cpu;

/// <summary>How products are cut by the sizes of caches.</summary>
public sealed class GemmBlocksTests
{
    [Theory]
    [InlineData(256, 4096, 48, 192)]
    [InlineData(512, 16384, 96, 672)]
    [InlineData(1024, 32768, 192, 768)]
    [InlineData(2048, 36864, 384, 768)]
    [InlineData(16384, 16384, 384, 672)]
    [InlineData(64, 64, 48, 192)]
    public void Of_CacheSizes_FillsWhatTheyHold(int level2, int level3, int columns, int rows)
    {
        GemmBlocks blocks = GemmBlocks.Of(new CpuCaches(level2 << 10, level3 << 10));
        Assert.Equal((columns, rows), (blocks.Columns, blocks.Rows));
        Assert.Equal(level3 * 64L, blocks.Wide);
    }

    [Fact]
    public void Tasks_AnyShape_CoverItInBlocksThatFitTheScratchMemory()
    {
        var random = new Random(1);
        foreach (CpuCaches caches in new[] { new CpuCaches(256 << 10, 4 << 20), new CpuCaches(1 << 20, 32 << 20), new CpuCaches(2 << 20, 32 << 20) })
        {
            GemmBlocks blocks = GemmBlocks.Of(caches);
            for (int i = 0; i < 2000; i++)
            {
                int rows = random.Next(1, 5000), columns = random.Next(1, 13000), threads = random.Next(1, 65);
                (int m, int n) = blocks.Tasks(rows, columns, threads);
                Assert.InRange(m, 1, blocks.Rows);
                Assert.InRange(n, 1, blocks.Columns);
                long tasks = (rows + m - 1) / m * (long)((columns + n - 1) / n);
                // Nobody is left without work unless the blocks are as small as they get.
                Assert.True(tasks >= threads || (m <= 96 && n <= 48), $"{rows} x {columns} on {threads}: {m} x {n}");
            }
        }
    }

    [Fact]
    public void Tasks_EncoderOnTwoThreads_WidensWeightsOnce()
    {
        GemmBlocks blocks = GemmBlocks.Of(new CpuCaches(1 << 20, 32 << 20));
        Assert.Equal((576, 192), blocks.Tasks(576, 3072, 2));
        Assert.Equal((576, 96), blocks.Tasks(576, 768, 2));
        Assert.Equal((672, 192), blocks.Tasks(2688, 768, 2));
        Assert.Equal((144, 192), blocks.Tasks(144, 12288, 2));
    }

    [Fact]
    public void Read_FolderAsLinuxHasIt_TakesDataCachesOnly()
    {
        string folder = Directory.CreateTempSubdirectory("convllava-caches-").FullName;
        try
        {
            Assert.Equal(CpuCaches.Unknown, CpuCaches.Read(folder));
            Assert.Equal(CpuCaches.Unknown, CpuCaches.Read(Path.Combine(folder, "absent")));
            Describe("index0", "1", "Data", "48K");
            Describe("index1", "2", "Instruction", "64K");
            Describe("index2", "2", "Unified", "512K");
            Assert.Equal(new CpuCaches(512 << 10, 512 << 10), CpuCaches.Read(folder));
            Describe("index3", "3", "Unified", "16384K");
            Assert.Equal(new CpuCaches(512 << 10, 16 << 20), CpuCaches.Read(folder));
            Describe("index2", "2", "Unified", "none");
            Describe("index3", "3", "Unified", "0K");
            Assert.Equal(CpuCaches.Unknown, CpuCaches.Read(folder));
            File.Delete(Path.Combine(folder, "index2", "size"));
            Assert.Equal(CpuCaches.Unknown, CpuCaches.Read(folder));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }

        void Describe(string name, string level, string type, string size)
        {
            string index = Directory.CreateDirectory(Path.Combine(folder, name)).FullName;
            File.WriteAllText(Path.Combine(index, "level"), level + "\n");
            File.WriteAllText(Path.Combine(index, "type"), type + "\n");
            File.WriteAllText(Path.Combine(index, "size"), size + "\n");
        }
    }
}
