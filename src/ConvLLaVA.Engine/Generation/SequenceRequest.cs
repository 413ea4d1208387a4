namespace ConvLLaVA.Engine.Generation;

/// <summary>Turns generated ids into text; made anew for each request.</summary>
internal interface ITextDecoder
{
    /// <summary>Takes the next id and gives the text that is certain now.</summary>
    string Append(int id);

    /// <summary>Gives what was held back.</summary>
    string Flush();
}

/// <summary>A prepared request: what the scheduler needs, and what it passes on unseen.</summary>
internal sealed record SequenceRequest
{
    /// <summary>The prompt, expanded: ids, and -1 - r for row r of the request's image features.</summary>
    public required int[] PromptTokens { get; init; }

    /// <summary>The pictures, for the runner; null when there are none.</summary>
    public object? Images { get; init; }

    /// <summary>Stands for the pictures and how they were prepared: requests with other pictures have another number.</summary>
    public UInt128 ImagesKey { get; init; }

    /// <summary>How to generate; already validated.</summary>
    public GenerationOptions Options { get; init; } = new();

    /// <summary>Makes text of ids.</summary>
    public required ITextDecoder Decoder { get; init; }

    /// <summary>Ids that end the answer.</summary>
    public IReadOnlyList<int> EosTokenIds { get; init; } = [];

    /// <summary>Time already spent on preparing it.</summary>
    public TimeSpan PreprocessTime { get; init; }
}
