using System.Text.Json;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Quantization;

namespace ConvLLaVA.Bench;

/// <summary>Answers a held-out question file with the engine, several requests at a time, and scores it.</summary>
internal static class AccuracyRun
{
    private const int Concurrency = 8;
    private static readonly string[] ShortKinds = ["color", "shape", "size", "count", "where", "exists"];

    public static async Task RunAsync(string data, string model, string? output, string? reference, QuantOptions? quantize)
    {
        HeldOutQuestion[] questions = Read(Path.Combine(data, "questions.jsonl"));
        await using ConvLlava engine = await ConvLlava.LoadAsync(model, new LoadOptions { Quantize = quantize });
        var answered = new HeldOutQuestion[questions.Length];
        await Parallel.ForAsync(0, questions.Length, new ParallelOptions { MaxDegreeOfParallelism = Concurrency }, async (i, cancellation) =>
        {
            HeldOutQuestion question = questions[i];
            GenerationResult result = await engine.AnswerAsync(
                PromptRequest.Ask(question.Question, ImageInput.FromFile(Path.Combine(data, question.Image))),
                new GenerationOptions { MaxNewTokens = 128 }, cancellation);
            answered[i] = question with { Output = result.Text, TokenIds = result.TokenIds };
        });
        if (output is not null) await File.WriteAllLinesAsync(output, answered.Select(line => JsonSerializer.Serialize(line, HeldOutJson.Default.HeldOutQuestion)));

        Console.WriteLine("| kind | questions | right |\n|---|---|---|");
        foreach (IGrouping<string, HeldOutQuestion> kind in answered.GroupBy(line => line.Kind)) Row(kind.Key, kind);
        Row("all short answers", answered.Where(line => ShortKinds.Contains(line.Kind)));
        if (reference is not null) Compare(answered, Read(reference), reference);
    }

    private static void Row(string name, IEnumerable<HeldOutQuestion> lines)
    {
        HeldOutQuestion[] all = [.. lines];
        if (all.Length > 0) Console.WriteLine($"| {name} | {all.Length} | {100.0 * all.Count(line => line.IsRight) / all.Length:F1} % |");
    }

    private static void Compare(HeldOutQuestion[] ours, HeldOutQuestion[] theirs, string reference)
    {
        Dictionary<(string, string), HeldOutQuestion> byQuestion = theirs.ToDictionary(line => (line.Image, line.Question));
        int same = ours.Count(line => byQuestion.TryGetValue((line.Image, line.Question), out HeldOutQuestion? other) && line.TokenIds!.SequenceEqual(other.TokenIds ?? []));
        Console.WriteLine($"\n{same} of {ours.Length} answers are the same as in {Path.GetFileName(reference)}, token for token.");
    }

    private static HeldOutQuestion[] Read(string path) =>
        [.. File.ReadLines(path).Where(line => line.Length > 0).Select(line => JsonSerializer.Deserialize(line, HeldOutJson.Default.HeldOutQuestion)!)];
}
