using ConvLLaVA.Engine.Tensors;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>How to open a <see cref="Checkpoint"/>.</summary>
public sealed record CheckpointOptions
{
    /// <summary>Folder of the vision tower; null = look for it.</summary>
    public string? VisionTower { get; init; }

    /// <summary>Read the configuration only and open no weights: enough for tokenizer and prompts.</summary>
    public bool TokenizerOnly { get; init; }

    /// <summary>A file in the format of <c>sha256sum</c> that every configuration and weight file must agree with; null = no
    /// check. Checking reads all weights once.</summary>
    public string? Sha256Manifest { get; init; }

    /// <summary>Type of the weights of a model that is made (<c>synth:…</c>) rather than read; stored weights keep their own.</summary>
    public DType SyntheticType { get; init; } = DType.BFloat16;

    /// <summary>Receives what happens while opening.</summary>
    public ILogger Logger { get; init; } = NullLogger.Instance;
}
