namespace ConvLLaVA.Engine.Cpu;

/// <summary>Sixteen 32-bit lanes as integers, the companion of <see cref="ISimd{V}"/>. A lane is a row of weights; within it stand two
/// 16-bit or four 8-bit elements of that row. All operations are exact, so every path gives the same bits.</summary>
internal unsafe interface IIntegers<I, V> where I : struct where V : struct
{
    static abstract I Zero { get; }

    static abstract I Broadcast(int value);

    static abstract I Add(I a, I b);

    static abstract I Subtract(I a, I b);

    static abstract V ToFloat(I value);

    /// <summary>Loads 32 signed bytes as 16-bit elements.</summary>
    static abstract I LoadPairs(sbyte* source);

    /// <summary>Two 16-bit elements in every lane.</summary>
    static abstract I BroadcastPair(short* source);

    /// <summary>Lane by lane the sum of two products of 16-bit elements. Saturates for none but -32768 times itself twice.</summary>
    static abstract I MultiplyPairs(I a, I b);

    /// <summary>Loads 64 bytes.</summary>
    static abstract I Load(byte* source);

    /// <summary>Four 8-bit elements in every lane.</summary>
    static abstract I BroadcastQuad(sbyte* source);

    /// <summary>The low four bits of every byte.</summary>
    static abstract I LowNibbles(I value);

    /// <summary>The high four bits of every byte.</summary>
    static abstract I HighNibbles(I value);

    /// <summary>Products of unsigned bytes up to 15 and signed bytes, neighbours added: 16-bit sums of at most 2 * 15 * 128.</summary>
    static abstract I MultiplyQuads(I small, I signed);

    /// <summary>Adds 16-bit elements.</summary>
    static abstract I AddShort(I a, I b);

    /// <summary>Lane by lane the sum of its two 16-bit elements.</summary>
    static abstract I SumPairs(I value);

    /// <summary>Widens 16 bytes without sign, one a lane.</summary>
    static abstract I LoadBytes(byte* source);

    /// <summary>Every lane without its low four bits, moved down by as many.</summary>
    static abstract I ShiftRight4(I value);

    /// <summary>The entry of a table of 16 that the low four bits of a lane name.</summary>
    static abstract V Look(V table, I index);

    /// <summary>Decodes 16 floats of type e4m3; NaN is not among them.</summary>
    static abstract V LoadFloat8(byte* source);
}
