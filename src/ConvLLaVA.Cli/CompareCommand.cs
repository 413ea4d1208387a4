using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava compare</c>: what quantising costs in accuracy, measured on prompts and pictures.</summary>
internal static class CompareCommand
{
    private const string SampleFolder = "samples";
    private static readonly string[] s_questions =
    [
        "Describe the image.", "How many blue shapes are there?", "Is there a green star?", "What size is the green circle?",
        "Please provide the bounding box coordinate of the region this sentence describes: the yellow circle.",
    ];

    public static Command Create()
    {
        var command = new Command("compare", "Run prompts through a model in several precisions and say how far they are from a reference.");
        var model = new ModelOptions();
        var reference = new Option<string>("--reference") { Description = $"What the others are held against: fp32, fp16, bf16, stored or a format ({QuantFormats.AllNames}).", DefaultValueFactory = _ => "fp32", HelpName = "PRECISION" };
        var with = new Option<string>("--with") { Description = "The others, separated by commas.", HelpName = "PRECISION,...", Required = true };
        var vision = new Option<bool>("--vision") { Description = "Quantise the vision tower's pointwise layers too." };
        var head = new Option<bool>("--lm-head") { Description = "Quantise the output head too." };
        var prompts = new Option<string?>("--prompts") { Description = "A file with a question a line; each is asked about each picture. Without it questions that the demo model knows.", HelpName = "FILE" };
        var images = new Option<string[]>("--images", "--image", "-i") { Description = "Pictures; without it the samples.", HelpName = "FILE", AllowMultipleArgumentsPerToken = true, DefaultValueFactory = _ => [] };
        var tokens = new Option<int>("--max-new-tokens") { Description = "Most tokens of an answer.", DefaultValueFactory = _ => 64, HelpName = "N" };
        var json = new Option<string?>("--json") { Description = "Also write the result to this file.", HelpName = "FILE" };
        model.AddTo(command, quantize: false);
        foreach (Option option in (Option[])[reference, with, vision, head, prompts, images, tokens, json]) command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            LoadOptions loading = model.LoadOptions(parsed);
            ComparedPrecision Precision(Option option, string name) => new(name, Load(loading, option.Name, name, parsed.GetValue(vision), parsed.GetValue(head)));
            ComparedPrecision baseline = Precision(reference, parsed.GetValue(reference)!);
            ComparedPrecision[] others = [.. parsed.GetValue(with)!.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Select(name => Precision(with, name))];
            if (others.Length == 0) throw new InvalidInputException($"{with.Name} is empty but must name at least one precision.");
            string[] questions = parsed.GetValue(prompts) is { } path ? Questions(path) : s_questions;
            string[] pictures = parsed.GetValue(images) is { Length: > 0 } given ? given : Samples();
            if (Array.Find(pictures, picture => !File.Exists(picture)) is { } missing) throw new InvalidInputException($"The picture {missing} does not exist.");
            PromptRequest[] requests = [.. pictures.SelectMany(picture => questions.Select(question => PromptRequest.Ask(question, ImageInput.FromFile(picture))))];
            using OutputFile? file = parsed.GetValue(json) is { } target ? new OutputFile(target) : null;
            var comparison = new PrecisionComparison(model.ModelFolder(parsed), baseline, requests, parsed.GetValue(tokens), line => Console.Error.WriteLine(line));
            ComparisonReport report = await comparison.RunAsync(others, cancellation);
            Print(report);
            file?.Complete(JsonSerializer.Serialize(report, InstrumentJson.Default.ComparisonReport));
            return Program.Done;
        });
        return command;
    }

    private static LoadOptions Load(LoadOptions options, string option, string name, bool vision, bool head) => name switch
    {
        "stored" => options,
        _ when DTypeNames.TryParse(name) is { } type => options with { WeightType = type },
        _ when QuantFormats.TryParse(name) is { } format => options with { Quantize = new QuantOptions(format, vision, head) },
        _ => throw new InvalidInputException($"{option} names '{name}' but must be fp32, fp16, bf16, stored or one of {QuantFormats.AllNames}."),
    };

    private static string[] Questions(string path)
    {
        try
        {
            string[] lines = [.. File.ReadLines(path).Select(line => line.Trim()).Where(line => line.Length > 0)];
            return lines.Length > 0 ? lines : throw new InvalidInputException($"{path} holds no question, expected one a line.");
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"{path} cannot be read: {error.Message}", error);
        }
    }

    private static string[] Samples()
    {
        string folder = Path.Combine(AppContext.BaseDirectory, SampleFolder);
        string[] files = Directory.Exists(folder) ? [.. Directory.GetFiles(folder).Order(StringComparer.Ordinal)] : [];
        return files.Length > 0 ? files : throw new InvalidInputException($"No --images were given and the samples are not at '{folder}'.");
    }

    private static void Print(ComparisonReport report)
    {
        Console.Out.WriteLine($"{report.Model}, compared with {report.Reference}");
        var table = new TextTable(["", .. report.Formats.Select(format => format.Name)]);
        Row("KL divergence, mean (nats)", format => Number(format.Kl));
        Row("KL divergence, largest", format => Number(format.KlMax));
        Row("next tokens agreed", format => Share(format.TokensAgreed, format.Tokens));
        Row("answers the same", format => Share(format.AnswersAgreed, format.Answers));
        for (int i = 0; i < report.Formats[0].Layers.Count; i++)
        {
            int place = i;
            Row($"relative L2, {report.Formats[0].Layers[place].Name}", format => Number(format.Layers[place].RelativeL2));
        }
        table.WriteTo(Console.Out);

        void Row(string name, Func<FormatComparison, string> cell) => table.Add([name, .. report.Formats.Select(cell)]);
    }

    private static string Number(double value) => value.ToString("0.00e+0", CultureInfo.InvariantCulture);

    private static string Share(int part, int whole) => string.Create(CultureInfo.InvariantCulture, $"{part} of {whole} ({100.0 * part / whole:F1} %)");
}
