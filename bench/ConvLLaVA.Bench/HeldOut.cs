using System.Globalization;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;

namespace ConvLLaVA.Bench;

/// <summary>A line of <c>questions.jsonl</c> and, once answered, of an answers file; the format is described in
/// <c>tools/pytorch/eval_demo.py</c>.</summary>
internal sealed record HeldOutQuestion(string Image, string Kind, string Question, string Answer)
{
    /// <summary>Grounding only: the exact box as fractions of the padded square. [x1, y1, x2, y2]</summary>
    public double[]? Box { get; init; }

    /// <summary>The generated text, stripped.</summary>
    public string? Output { get; init; }

    /// <summary>The generated ids, the end-of-sequence token included.</summary>
    public IReadOnlyList<int>? TokenIds { get; init; }

    /// <summary>True when the output counts as right: exact match, or for grounding an intersection over union of at
    /// least one half.</summary>
    [JsonIgnore]
    public bool IsRight => Kind == "grounding" ? Scoring.Iou(Scoring.ParseBox(Output ?? ""), Box!) >= 0.5 : Output == Answer;
}

/// <summary>How the original's RefCOCO evaluation reads and scores a box.</summary>
internal static partial class Scoring
{
    /// <summary>The first box in an answer; zeros where there is none; coordinates of 0..1000 are scaled to 0..1.</summary>
    public static double[] ParseBox(string text)
    {
        double[] box = new double[4];
        Match match = BoxPattern().Match(text);
        if (!match.Success) return box;
        for (int i = 0; i < 4; i++)
        {
            if (!double.TryParse(match.Groups[i + 1].Value, NumberStyles.Float, CultureInfo.InvariantCulture, out box[i])) return new double[4];
        }
        return box.Sum() >= 4 ? [.. box.Select(value => value / 1000)] : box;
    }

    /// <summary>Intersection over union of two boxes [x1, y1, x2, y2].</summary>
    public static double Iou(double[] a, double[] b)
    {
        double width = Math.Min(a[2], b[2]) - Math.Max(a[0], b[0]);
        double height = Math.Min(a[3], b[3]) - Math.Max(a[1], b[1]);
        if (width <= 0 || height <= 0) return 0;
        return width * height / (Area(a) + Area(b) - width * height);
    }

    private static double Area(double[] box) => (box[2] - box[0]) * (box[3] - box[1]);

    [GeneratedRegex(@"\[*\[(.*?),(.*?),(.*?),(.*?)\]\]*")]
    private static partial Regex BoxPattern();
}

[JsonSerializable(typeof(HeldOutQuestion))]
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
internal sealed partial class HeldOutJson : JsonSerializerContext;
