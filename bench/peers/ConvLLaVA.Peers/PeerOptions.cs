using System.Globalization;
using ConvLLaVA.Engine;

namespace ConvLLaVA.Peers;

/// <summary>What the command line says.</summary>
internal sealed record PeerOptions
{
    /// <summary>Every stage, in the order of a whole run.</summary>
    public static IReadOnlyList<string> AllStages { get; } = ["rates", "images", "encoder", "llama", "context", "operations", "memory", "report"];

    /// <summary>The preset with the published decoder's width.</summary>
    public const string PublishedWidth = "llama-4l";

    /// <summary>The language model that everybody runs; a smaller one tries the measurement itself.</summary>
    public string Model { get; init; } = "synth:" + PublishedWidth;

    /// <summary>What to do.</summary>
    public required IReadOnlyList<string> Stages { get; init; }

    /// <summary>CPU threads of every contestant.</summary>
    public int Threads { get; init; } = Environment.ProcessorCount;

    /// <summary>Runs of each contestant that count.</summary>
    public int Rounds { get; init; } = 3;

    /// <summary>Folder for the model files that other programs need.</summary>
    public string WorkFolder { get; init; } = Path.Combine(Path.GetTempPath(), "convllava-peers");

    /// <summary>Folder with llama.cpp's prebuilt libraries; null leaves it out.</summary>
    public string? LlamaFolder { get; init; }

    /// <summary>The command line program whose loading is measured; null leaves that out.</summary>
    public string? Program { get; init; }

    /// <summary>Folder of a 7B checkpoint in bf16, for loading and memory; null leaves it out.</summary>
    public string? LargeModel { get; init; }

    /// <summary>A Python with Pillow and numpy; null leaves Pillow out.</summary>
    public string? Python { get; init; }

    /// <summary>The record to add to.</summary>
    public required string Record { get; init; }

    /// <summary>Where the page and its pictures go.</summary>
    public required string Docs { get; init; }

    /// <summary>Reads the command line.</summary>
    /// <exception cref="InvalidInputException">It is not understood.</exception>
    public static PeerOptions Parse(string[] args)
    {
        List<string> stages = [];
        Dictionary<string, string> values = [];
        for (int i = 0; i < args.Length; i++)
        {
            if (!args[i].StartsWith("--", StringComparison.Ordinal)) stages.Add(args[i]);
            else if (i + 1 == args.Length) throw new InvalidInputException($"{args[i]} needs a value.");
            else values[args[i][2..]] = args[++i];
        }
        string[] known = ["model", "threads", "rounds", "work", "llama", "python", "program", "large", "record", "docs"];
        if (values.Keys.FirstOrDefault(key => !known.Contains(key)) is { } unknown)
            throw new InvalidInputException($"There is no option --{unknown}; known are {string.Join(", ", known.Select(name => "--" + name))}.");
        if (stages.FirstOrDefault(stage => !AllStages.Contains(stage)) is { } wrong)
            throw new InvalidInputException($"There is no stage '{wrong}'; known are {string.Join(", ", AllStages)}.");
        var defaults = new PeerOptions { Stages = [], Record = "", Docs = "" };
        return new PeerOptions
        {
            Stages = stages.Count > 0 ? stages : AllStages,
            Model = values.GetValueOrDefault("model", defaults.Model),
            Threads = Number("threads", defaults.Threads),
            Rounds = Number("rounds", defaults.Rounds),
            WorkFolder = values.GetValueOrDefault("work", defaults.WorkFolder),
            LlamaFolder = values.GetValueOrDefault("llama"),
            Program = values.GetValueOrDefault("program"),
            LargeModel = values.GetValueOrDefault("large"),
            Python = values.GetValueOrDefault("python"),
            Record = values.GetValueOrDefault("record") ?? throw new InvalidInputException("--record must name the JSON file to add to."),
            Docs = values.GetValueOrDefault("docs") ?? throw new InvalidInputException("--docs must name the folder of the page."),
        };

        int Number(string key, int otherwise) => !values.TryGetValue(key, out string? text) ? otherwise
            : int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number > 0 ? number
            : throw new InvalidInputException($"--{key} is '{text}' but must be a whole number over 0.");
    }
}
