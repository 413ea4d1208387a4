namespace ConvLLaVA.Engine.Instruments;

/// <summary>What to measure.</summary>
public sealed record BenchPlan
{
    /// <summary>Everything that can be asked for.</summary>
    public static IReadOnlyList<string> AllKinds { get; } = ["load", "kernels", "encode", "prefill", "decode", "e2e"];

    /// <summary>The model: a folder or <c>synth:PRESET</c>.</summary>
    public required string Model { get; init; }

    /// <summary>What to measure, of <see cref="AllKinds"/>.</summary>
    public required IReadOnlyList<string> Kinds { get; init; }

    /// <summary>Sides of the pictures to encode; null for the model's own.</summary>
    public IReadOnlyList<int>? ImageSizes { get; init; }

    /// <summary>Pictures encoded at once.</summary>
    public IReadOnlyList<int> Batches { get; init; } = [1, 8];

    /// <summary>Prompt lengths; null for those of the published models, as far as the context holds them.</summary>
    public IReadOnlyList<int>? Prompts { get; init; }

    /// <summary>Contexts to decode at; null for 700 and 4000, as far as the model holds them.</summary>
    public IReadOnlyList<int>? Contexts { get; init; }

    /// <summary>Sequences that decode together.</summary>
    public IReadOnlyList<int> Sequences { get; init; } = [1, 8];

    /// <summary>Runs of each, at most.</summary>
    public int Runs { get; init; } = 20;

    /// <summary>Time for each, about.</summary>
    public TimeSpan TimeEach { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>The plan for a model with so many positions.</summary>
    internal BenchPlan For(int positions) => this with { Prompts = Prompts ?? Fitting([204, 316, 636], positions), Contexts = Contexts ?? Fitting([700, 4000], positions) };

    private static int[] Fitting(int[] wanted, int positions) => wanted.Any(length => length < positions) ? [.. wanted.Where(length => length < positions)] : [Math.Max(1, positions / 2)];

    internal void Validate()
    {
        if (Kinds.Count == 0) throw new InvalidInputException($"Nothing to measure was named; known are {string.Join(", ", AllKinds)}.");
        foreach (string kind in Kinds)
        {
            if (!AllKinds.Contains(kind)) throw new InvalidInputException($"There is no benchmark '{kind}'; known are {string.Join(", ", AllKinds)}.");
        }
        foreach ((string what, IReadOnlyList<int> values) in ((string, IReadOnlyList<int>)[])[("image size", ImageSizes ?? [64]), ("batch", Batches), ("prompt length", Prompts ?? [1]), ("context", Contexts ?? [1]), ("number of sequences", Sequences)])
        {
            foreach (int value in values)
            {
                if (value is < 1 or > 65536) throw new InvalidInputException($"The {what} is {value} but must be 1 to 65536.");
            }
        }
        if (Runs < 1) throw new InvalidInputException($"The number of runs is {Runs} but must be at least 1.");
    }
}
