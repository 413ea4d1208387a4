namespace ConvLLaVA.Peers;

/// <summary>A language model that keeps its context: what prefill and decode are measured on.</summary>
internal interface ILanguageModel : IDisposable
{
    /// <summary>Logits after the last token fed. [vocab_size]</summary>
    ReadOnlySpan<float> Logits { get; }

    /// <summary>Forgets the context.</summary>
    void Reset();

    /// <summary>Appends tokens and computes the logits of the last one.</summary>
    void Feed(int[] tokens);
}
