namespace ConvLLaVA.Engine.Instruments;

/// <summary>How far a model in one format is from the reference, over all prompts of a comparison.</summary>
/// <param name="Name">Format.</param>
/// <param name="Layers">Relative L2 error of the projected image features, of the hidden state after each decoder layer and of the logits.</param>
/// <param name="Kl">Mean Kullback-Leibler divergence of the next-token distribution from the reference's, in nats, along the reference's answers.</param>
/// <param name="KlMax">The largest.</param>
/// <param name="Tokens">Tokens of all the reference's answers.</param>
/// <param name="TokensAgreed">Of them, those that the format would have chosen too, the reference's tokens before it given.</param>
/// <param name="Answers">Prompts.</param>
/// <param name="AnswersAgreed">Of them, those to which the format's own greedy answer is the same, token for token.</param>
public sealed record FormatComparison(string Name, IReadOnlyList<LayerError> Layers, double Kl, double KlMax, int Tokens, int TokensAgreed, int Answers, int AnswersAgreed);

/// <summary>The error of one place in the model.</summary>
/// <param name="Name"><c>projected features</c>, <c>layer 0</c>, …, <c>logits</c>.</param>
/// <param name="RelativeL2">Norm of the difference over the norm of the reference.</param>
public sealed record LayerError(string Name, double RelativeL2);

/// <summary>The result of a comparison.</summary>
/// <param name="Model">Folder.</param>
/// <param name="Reference">What the others were compared with.</param>
/// <param name="Formats">One entry for each format.</param>
public sealed record ComparisonReport(string Model, string Reference, IReadOnlyList<FormatComparison> Formats);
