using System.Collections.Immutable;

namespace ConvLLaVA.Engine.Synthetic;

/// <summary>The sizes of a model with random weights: the published ones, and small ones that exercise the same code.</summary>
/// <param name="Name">What it is asked for by.</param>
/// <param name="ImageSize">Pixels per side of the picture as the tower sees it.</param>
/// <param name="Depths">Blocks of each vision stage.</param>
/// <param name="Widths">Channels of each vision stage.</param>
/// <param name="HiddenSize">Width of the decoder.</param>
/// <param name="IntermediateSize">Width of its gated MLP.</param>
/// <param name="Layers">Decoder layers.</param>
/// <param name="Heads">Query heads.</param>
/// <param name="KeyValueHeads">Key and value heads.</param>
/// <param name="VocabularySize">Rows of embedding and output head.</param>
/// <param name="MaxPositions">Tokens of the context.</param>
/// <param name="PromptLength"><c>tokenizer_model_max_length</c>.</param>
public sealed record SyntheticPreset(string Name, int ImageSize, ImmutableArray<int> Depths, ImmutableArray<int> Widths, int HiddenSize,
    int IntermediateSize, int Layers, int Heads, int KeyValueHeads, int VocabularySize, int MaxPositions, int PromptLength)
{
    private static readonly SyntheticPreset Published = new("7b", 0, [3, 3, 27, 3, 6], [192, 384, 768, 1536, 3072], 4096, 11008, 32, 32, 32, 32000, 4096, 2048);

    /// <summary>Every preset, smallest first.</summary>
    public static IReadOnlyList<SyntheticPreset> All { get; } =
    [
        // Grouped queries, widths that are no powers of two and a stage of one block: what the large ones do not have.
        new("tiny", 128, [1, 1, 2, 1, 1], [16, 32, 48, 64, 96], 128, 344, 2, 4, 2, 512, 1024, 1024),
        // Large enough for tensor cores and several tiles in every kernel, small enough to compare whole dumps of.
        new("mid", 384, [2, 2, 6, 2, 2], [96, 192, 384, 768, 1536], 1024, 2816, 8, 16, 8, 8000, 2048, 2048),
        // The published decoder's width in four layers, and the published tower alone: for measurements beside other engines.
        new("llama-4l", 128, [1, 1, 1, 1, 1], [16, 32, 48, 64, 96], 4096, 11008, 4, 32, 32, 32000, 4096, 2048),
        Published with { Name = "encoder-768", ImageSize = 768, HiddenSize = 128, IntermediateSize = 344, Layers = 1, Heads = 2, KeyValueHeads = 2, VocabularySize = 512, MaxPositions = 1024, PromptLength = 1024 },
        Published with { Name = "7b-768", ImageSize = 768 },
        Published with { Name = "7b-1024", ImageSize = 1024 },
        Published with { Name = "7b-1536", ImageSize = 1536 },
    ];

    /// <summary>Elements of one attention head.</summary>
    public int HeadDim => HiddenSize / Heads;

    /// <summary>Visual tokens of one picture.</summary>
    public int ImageTokens => ImageSize / (4 << (Depths.Length - 1)) * (ImageSize / (4 << (Depths.Length - 1)));

    /// <summary>The preset of that name.</summary>
    /// <exception cref="InvalidInputException">There is none.</exception>
    public static SyntheticPreset Get(string name) => All.FirstOrDefault(preset => preset.Name == name)
        ?? throw new InvalidInputException($"There is no preset '{name}'; known are {string.Join(", ", All.Select(preset => preset.Name))}.");
}
