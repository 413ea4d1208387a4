namespace ConvLLaVA.Engine.Images;

/// <summary>Rescaling and normalising as a table: both take an 8-bit sample, so there are 256 results per channel. Bit-equal to
/// <c>CLIPImageProcessor</c>: the sample times the factor in float64, rounded to float32; then float32 subtraction and true division.</summary>
public sealed class NormalizationTable
{
    private readonly float[] _values;

    /// <summary>Computes the table of the settings.</summary>
    /// <exception cref="InvalidInputException">A setting is out of range.</exception>
    public NormalizationTable(PreprocessOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Check();
        _values = new float[3 * 256];
        for (int channel = 0; channel < 3; channel++)
        {
            float mean = (float)options.Mean[channel], std = (float)options.Std[channel];
            for (int sample = 0; sample < 256; sample++)
            {
                float value = options.DoRescale ? (float)(sample * options.RescaleFactor) : sample;
                if (options.DoNormalize)
                {
                    float difference = value - mean;
                    value = difference / std;
                }
                _values[256 * channel + sample] = value;
            }
        }
    }

    /// <summary>The table, float32 <c>[3, 256]</c>: channel (red first), then sample.</summary>
    public ReadOnlySpan<float> Values => _values;

    /// <summary>Turns samples into the vision tower's input.</summary>
    /// <param name="pixels">Samples <c>[H, W, 3]</c>.</param>
    /// <param name="chw">Receives float32 <c>[3, H, W]</c>.</param>
    /// <exception cref="ArgumentException">The lengths differ or are no multiple of 3.</exception>
    public void Fill(ReadOnlySpan<byte> pixels, Span<float> chw)
    {
        if (pixels.Length != chw.Length || pixels.Length % 3 != 0)
        {
            throw new ArgumentException($"{pixels.Length} samples cannot fill {chw.Length} values: expected the same multiple of 3.", nameof(chw));
        }
        int plane = pixels.Length / 3;
        Span<float> red = chw[..plane], green = chw.Slice(plane, plane), blue = chw.Slice(2 * plane, plane);
        ReadOnlySpan<float> redValues = _values.AsSpan(0, 256), greenValues = _values.AsSpan(256, 256), blueValues = _values.AsSpan(512, 256);
        for (int i = 0; i < red.Length; i++)
        {
            red[i] = redValues[pixels[3 * i]];
            green[i] = greenValues[pixels[3 * i + 1]];
            blue[i] = blueValues[pixels[3 * i + 2]];
        }
    }
}
