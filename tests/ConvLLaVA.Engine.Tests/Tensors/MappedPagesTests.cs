using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Tensors;

/// <summary>Memory straight from the system.</summary>
public sealed unsafe class MappedPagesTests
{
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(MappedPages.HugePage - 1)]
    [InlineData(MappedPages.HugePage)]
    [InlineData((3 * MappedPages.HugePage) + 5)]
    public void Take_AnySize_IsAlignedAndCanBeWrittenToItsEnd(int bytes)
    {
        for (int round = 0; round < 3; round++)
        {
            nint data = MappedPages.Take(bytes), other = MappedPages.Take(bytes);
            Assert.Equal(0, data % (bytes >= MappedPages.HugePage ? MappedPages.HugePage : 4096));
            new Span<byte>((void*)data, bytes).Fill(1);
            new Span<byte>((void*)other, bytes).Fill(2);
            Assert.False(new ReadOnlySpan<byte>((void*)data, bytes).ContainsAnyExcept((byte)1));
            MappedPages.Free(data, bytes);
            Assert.False(new ReadOnlySpan<byte>((void*)other, bytes).ContainsAnyExcept((byte)2));
            MappedPages.Free(other, bytes);
        }
    }

    [Theory]
    [InlineData(1L << 60)]
    [InlineData(long.MaxValue)]
    public void Take_MoreThanThereIs_IsRefused(long bytes) => Assert.Throws<OutOfMemoryException>(() => MappedPages.Take(bytes));
}
