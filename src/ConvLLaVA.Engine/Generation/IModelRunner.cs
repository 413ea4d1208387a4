using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Generation;

/// <summary>Executes what is planned. All calls come from the engine's thread.</summary>
internal interface IModelRunner
{
    /// <summary>Columns of the logits.</summary>
    int VocabularySize { get; }

    /// <summary>Most tokens of one sequence.</summary>
    int MaxPositions { get; }

    /// <summary>What broke the device for good, or null: no further call can succeed.</summary>
    ConvLlavaException? Fault => null;

    /// <summary>Encodes the pictures of a request and keeps the result in <see cref="RunningSequence.Features"/>. Called once a request,
    /// before the first step that has rows of its pictures.</summary>
    void EncodeImages(RunningSequence sequence);

    /// <summary>Runs a step and chooses the tokens that its batch's <see cref="PagedBatch.Sampling"/> asks for.</summary>
    void Forward(StepPlan plan);

    /// <summary>Frees what <see cref="EncodeImages"/> kept.</summary>
    void ReleaseImages(RunningSequence sequence);

    /// <summary>Copies a page of all layers.</summary>
    void CopyBlock(int source, int destination);
}

/// <summary>Limits of the engine.</summary>
internal sealed record GenerationEngineOptions
{
    /// <summary>Most tokens of a step.</summary>
    public int MaxStepTokens { get; init; } = 512;

    /// <summary>Most sequences that hold pages at a time.</summary>
    public int MaxSequences { get; init; } = 16;

    /// <summary>Pages, page 0 included.</summary>
    public required int Blocks { get; init; }

    /// <summary>Tokens a page holds.</summary>
    public int BlockSize { get; init; } = 16;

    /// <summary>Whether the start of a prompt is taken from pages that an earlier request has written.</summary>
    public bool ReusePrefixes { get; init; } = true;
}
