using ConvLLaVA.Engine.Images;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Images;

public sealed class RunLengthTests
{
    [Fact]
    public void Jumps_skip_to_the_right_and_up()
    {
        // One pixel, then 1 right and 1 up, then two pixels.
        byte[]? pixels = BmpRle.Unpack([1, 9, 0, 2, 1, 1, 2, 7], 4, 2, fourBits: false);
        Assert.Equal([9, 0, 0, 0, 0, 0, 7, 7], pixels);
    }

    [Fact]
    public void An_odd_number_of_literal_4_bit_pixels_is_kept()
    {
        byte[]? pixels = BmpRle.Unpack([0, 3, 0x12, 0x30, 1, 0x40], 4, 1, fourBits: true);
        Assert.Equal([1, 2, 3, 4], pixels);
    }

    [Fact]
    public void Literals_are_padded_to_16_bits()
    {
        byte[]? pixels = BmpRle.Unpack([0, 3, 1, 2, 3, 0xEE, 1, 4], 4, 1, fourBits: false);
        Assert.Equal([1, 2, 3, 4], pixels);
    }

    [Fact]
    public void An_early_end_gives_nothing()
    {
        Assert.Null(BmpRle.Unpack([2, 7, 0, 1], 4, 2, fourBits: false));
        Assert.Null(BmpRle.Unpack([2, 7], 4, 2, fourBits: false));
        Assert.Null(BmpRle.Unpack([0, 5, 1], 4, 2, fourBits: false));
    }

    [Fact]
    public void Lzw_defines_a_code_while_it_is_used()
    {
        // Size 2: clear 4, end 5. Clear, 1, 6 (= "1 1" being defined), 5, in 3-bit codes from the low end.
        byte[] codes = [4 | 1 << 3 | (6 & 3) << 6, 6 >> 2 | 5 << 1];
        byte[] samples = new byte[3];
        Assert.Equal(LzwResult.Complete, GifLzw.Decode(codes, 2, samples));
        Assert.Equal([1, 1, 1], samples);
        Assert.Equal(LzwResult.Truncated, GifLzw.Decode(codes, 2, new byte[4]));
        Assert.Equal(LzwResult.Broken, GifLzw.Decode([4 | 7 << 3, 0], 2, samples));
    }
}
