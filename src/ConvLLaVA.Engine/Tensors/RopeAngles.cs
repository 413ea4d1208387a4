namespace ConvLLaVA.Engine.Tensors;

/// <summary>The angles of rotary embedding, with the bits that PyTorch computes.</summary>
internal static class RopeAngles
{
    /// <summary>1 / theta^(2 i / head_dim), rounded to float after the power and after the division as PyTorch does. [head_dim / 2]</summary>
    public static float[] InverseFrequencies(RopeParameters parameters)
    {
        var result = new float[parameters.HeadDim / 2];
        for (int i = 0; i < result.Length; i++)
            result[i] = 1f / (float)Math.Pow(parameters.Theta, 2 * i / (float)parameters.HeadDim);
        return result;
    }

    /// <summary>The cosines of a position and behind them its sines, head_dim / 2 each.</summary>
    /// <param name="parameters">Head size and scaling.</param>
    /// <param name="inverseFrequencies">As from <see cref="InverseFrequencies"/>.</param>
    /// <param name="position">The position.</param>
    /// <param name="row">Receives them. [head_dim]</param>
    public static void Fill(RopeParameters parameters, float[] inverseFrequencies, int position, Span<float> row)
    {
        int half = parameters.HeadDim / 2;
        float scaled = parameters.ScalingFactor == 1 ? position : position / (float)parameters.ScalingFactor;
        for (int i = 0; i < half; i++)
        {
            (double sine, double cosine) = Math.SinCos(scaled * inverseFrequencies[i]);
            row[i] = (float)cosine;
            row[half + i] = (float)sine;
        }
    }
}
