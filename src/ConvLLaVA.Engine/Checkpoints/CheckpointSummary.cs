using System.Collections.Immutable;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>A weight file of a checkpoint.</summary>
/// <param name="Path">Its path.</param>
/// <param name="Bytes">Its length.</param>
public sealed record CheckpointFile(string Path, long Bytes);

/// <summary>The weights of one part of the model that are read.</summary>
/// <param name="Parameters">Number of elements.</param>
/// <param name="Bytes">Bytes as stored.</param>
public readonly record struct CheckpointPart(long Parameters, long Bytes)
{
    /// <summary>Adds up tensors.</summary>
    public static CheckpointPart Sum(IEnumerable<WeightTensor> tensors)
    {
        long parameters = 0, bytes = 0;
        foreach (WeightTensor tensor in tensors)
        {
            parameters += tensor.ElementCount;
            bytes += tensor.ByteLength;
        }
        return new CheckpointPart(parameters, bytes);
    }

    /// <summary>Two parts together.</summary>
    public static CheckpointPart operator +(CheckpointPart left, CheckpointPart right) =>
        new(left.Parameters + right.Parameters, left.Bytes + right.Bytes);
}

/// <summary>What a checkpoint consists of.</summary>
/// <param name="Files">Open weight files, language model first.</param>
/// <param name="Vision">The vision tower.</param>
/// <param name="Projector">The projector.</param>
/// <param name="LanguageModel">The decoder with embedding and output head.</param>
/// <param name="DTypes">Precisions that occur among the tensors that are read.</param>
/// <param name="Ignored">Names of tensors in the files that are not read.</param>
public sealed record CheckpointSummary(ImmutableArray<CheckpointFile> Files, CheckpointPart Vision, CheckpointPart Projector,
    CheckpointPart LanguageModel, ImmutableArray<DType> DTypes, ImmutableArray<string> Ignored)
{
    /// <summary>Everything that is read.</summary>
    public CheckpointPart Total => Vision + Projector + LanguageModel;
}
