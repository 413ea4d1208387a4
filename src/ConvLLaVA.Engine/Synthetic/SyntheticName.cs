using System.Globalization;

namespace ConvLLaVA.Engine.Synthetic;

/// <summary>A model that is named instead of stored: <c>synth:PRESET</c> or <c>synth:PRESET:SEED</c>.</summary>
/// <param name="Preset">Its sizes.</param>
/// <param name="Seed">Seed of its weights.</param>
internal sealed record SyntheticName(SyntheticPreset Preset, ulong Seed)
{
    private const string Prefix = "synth:";

    /// <summary>Whether <paramref name="model"/> is such a name rather than a folder.</summary>
    public static bool Is(string model) => model.StartsWith(Prefix, StringComparison.Ordinal);

    /// <summary>Reads a name.</summary>
    /// <exception cref="InvalidInputException">The preset is unknown or the seed is no number.</exception>
    public static SyntheticName Parse(string model)
    {
        string[] parts = model[Prefix.Length..].Split(':');
        ulong seed = 0;
        if (parts.Length > 2 || (parts.Length == 2 && !ulong.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out seed)))
            throw new InvalidInputException($"The model '{model}' is not understood; write synth:PRESET or synth:PRESET:SEED with a whole number.");
        return new SyntheticName(SyntheticPreset.Get(parts[0]), seed);
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Prefix}{Preset.Name}:{Seed}");
}
