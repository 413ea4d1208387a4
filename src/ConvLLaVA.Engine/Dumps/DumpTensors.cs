namespace ConvLLaVA.Engine;

/// <summary>Which tensors of a request <c>DumpAsync</c> writes. No step is run that none of them needs.</summary>
public sealed class DumpTensors
{
    internal const string PixelValues = "pixel_values";
    internal const string HiddenState = "vision.hidden_states.";
    internal const string ImageFeatures = "image_features";
    internal const string ProjectedFeatures = "projected_features";
    internal const string InputIds = "input_ids";
    internal const string InputsEmbeds = "inputs_embeds";
    internal const string Logits = "logits";
    internal const string GeneratedIds = "generated_ids";

    private readonly HashSet<string> _wanted;

    private DumpTensors(IEnumerable<string> wanted) => _wanted = [.. wanted];

    /// <summary>Every name there is, in the order of the data flow. A four-stage tower has no
    /// <c>vision.hidden_states.5</c>; a request without images has none of the vision tensors.</summary>
    public static IReadOnlyList<string> Names { get; } =
    [
        PixelValues, .. Enumerable.Range(0, 6).Select(i => HiddenState + i), ImageFeatures, ProjectedFeatures,
        InputIds, InputsEmbeds, Logits, GeneratedIds,
    ];

    /// <summary>All of them.</summary>
    public static DumpTensors All { get; } = new(Names);

    /// <summary>Reads a list such as <c>image_features,logits</c>; null means all.</summary>
    /// <exception cref="InvalidInputException">The list is empty or a name is not known.</exception>
    public static DumpTensors Parse(string? list)
    {
        if (list is null) return All;
        string[] names = list.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        if (names.Length == 0) throw new InvalidInputException("The list of tensors is empty; give names separated by commas.");
        foreach (string name in names)
        {
            if (!Names.Contains(name)) throw new InvalidInputException($"There is no tensor '{name}' to dump; known are {string.Join(", ", Names)}.");
        }
        return new DumpTensors(names);
    }

    internal bool Wants(string name) => _wanted.Contains(name);

    /// <summary>The last hidden state of the vision tower that anything wanted needs, or -1 when the tower need not run.</summary>
    internal int LastHiddenState
    {
        get
        {
            if (Wants(ImageFeatures) || NeedsProjection) return int.MaxValue;
            for (int i = 5; i >= 0; i--)
            {
                if (Wants(HiddenState + i)) return i;
            }
            return -1;
        }
    }

    internal bool NeedsProjection => Wants(ProjectedFeatures) || NeedsEmbedding;

    /// <summary>Generated ids are not counted: the engine makes them, with a vision pass and a prefill of its own.</summary>
    internal bool NeedsEmbedding => Wants(InputsEmbeds) || Wants(Logits);
}
