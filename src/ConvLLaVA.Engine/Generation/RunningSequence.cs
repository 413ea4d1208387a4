using ConvLLaVA.Engine.KvCache;

namespace ConvLLaVA.Engine.Generation;

/// <summary>A request from its admission to its end. The scheduler looks at token counts and pages only; text, sampling and
/// channel are the engine's.</summary>
internal sealed class RunningSequence(SequenceRequest request, long arrival, CancellationToken cancellation)
{
    private readonly int _lastImageRow = Array.FindLastIndex(request.PromptTokens, id => id < 0);

    /// <summary>The request.</summary>
    public SequenceRequest Request { get; } = request;

    /// <summary>Order of arrival: lower came earlier and goes first.</summary>
    public long Arrival { get; } = arrival;

    /// <summary>Set when nobody waits for the answer any more.</summary>
    public CancellationToken Cancellation { get; } = cancellation;

    /// <summary>Prompt (expanded) and generated tokens. [length]</summary>
    public List<int> Tokens { get; } = [.. request.PromptTokens];

    /// <summary>How many of <see cref="Tokens"/> have keys and values in the pages.</summary>
    public int Computed { get; set; }

    /// <summary>True while rows of pictures are still to be processed.</summary>
    public bool NeedsImages => _lastImageRow >= Computed;

    /// <summary>Tokens at the start of the prompt whose pages were found already written when it was admitted.</summary>
    public int Reused { get; set; }

    /// <summary>Names of its full pages; null when pages are not to be found again.</summary>
    public PageKeys? Keys { get; set; }

    /// <summary>Tokens that have been generated.</summary>
    public int Generated => Tokens.Count - Request.PromptTokens.Length;

    /// <summary>Tokens still to be processed before the next one can be chosen; 1 while decoding.</summary>
    public int Pending => Tokens.Count - Computed;

    /// <summary>Its pages; null while it waits.</summary>
    public BlockTable? Table { get; set; }

    /// <summary>Encoded pictures, kept by the runner until the sequence ends: a preempted sequence needs them again.</summary>
    public object? Features { get; set; }

    /// <summary>Everything about choosing and showing tokens; null in tests of the scheduler alone.</summary>
    public AnswerState? Answer { get; set; }
}
