namespace ConvLLaVA.Engine.Quantization;

/// <summary>The 8-bit float e4m3 of the Open Compute Project: 4 bits of exponent with bias 7, 3 of fraction, no infinities, largest
/// value 448, code 0x7F (and 0xFF) for NaN.</summary>
public static class Float8
{
    /// <summary>The largest value.</summary>
    public const float Largest = 448f;

    /// <summary>The value of a code.</summary>
    public static float ToSingle(byte code)
    {
        int exponent = (code >> 3) & 15, fraction = code & 7;
        if (exponent == 15 && fraction == 7) return float.NaN;
        float magnitude = exponent == 0 ? MathF.ScaleB(fraction, -9) : MathF.ScaleB(8 + fraction, exponent - 10);
        return (code & 0x80) != 0 ? -magnitude : magnitude;
    }

    /// <summary>The code nearest to a finite value, ties to the even one; what is larger than all becomes the largest.</summary>
    public static byte FromSingle(float value)
    {
        int sign = BitConverter.SingleToInt32Bits(value) < 0 ? 0x80 : 0;
        float magnitude = MathF.Min(MathF.Abs(value), Largest);
        // Steps are 2^-9 below 2^-6 and an eighth of the power of two from there on.
        int exponent = Math.Max(magnitude == 0 ? -6 : Math.ILogB(magnitude), -6);
        int steps = (int)MathF.Round(MathF.ScaleB(magnitude, 3 - exponent)); // 16 carries into the next exponent by itself
        return (byte)(sign | (((exponent + 6) << 3) + steps));
    }
}
