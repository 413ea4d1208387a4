using System.Collections.Immutable;
using System.Runtime.CompilerServices;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>The tensors that a quantised matrix consists of in a file: <c>X.weight.codes</c>, <c>X.weight.scales</c> and for nf4
/// <c>X.weight.absmax</c> and <c>X.weight.offset</c>.</summary>
internal static class QuantizedParts
{
    /// <summary>Behind a weight's name: its codes.</summary>
    public const string Codes = ".codes";

    /// <summary>Its scales.</summary>
    public const string Scales = ".scales";

    /// <summary>The second-level scales of nf4.</summary>
    public const string AbsMax = ".absmax";

    /// <summary>What is added to the scales of nf4.</summary>
    public const string Offset = ".offset";

    /// <summary>Name, type and shape of every part of a matrix.</summary>
    public static IEnumerable<(string Suffix, DType Type, ImmutableArray<long> Shape)> Of(QuantLayout layout)
    {
        yield return (Codes, layout.CodeType, layout.CodeShape);
        yield return (Scales, layout.ScaleType, layout.ScaleShape);
        if (layout.Format != QuantFormat.Nf4) yield break;
        yield return (AbsMax, DType.Float32, [layout.AbsMaxCount]);
        yield return (Offset, DType.Float32, [1]);
    }

    /// <summary>Puts a matrix together from its parts.</summary>
    /// <param name="want">The matrix.</param>
    /// <param name="found">The tensors of the files.</param>
    /// <param name="options">What config.json says about quantisation.</param>
    /// <param name="source">Folder or file for messages.</param>
    /// <param name="used">Receives the names of the parts.</param>
    /// <returns>The matrix, or null when the files have no codes for it.</returns>
    /// <exception cref="InvalidInputException">A part is missing or is not what format and shape ask for.</exception>
    public static unsafe WeightTensor? Compose(ExpectedTensor want, IReadOnlyDictionary<string, WeightTensor> found, QuantOptions? options, string source, HashSet<string> used)
    {
        if (!found.TryGetValue(want.Name + Codes, out WeightTensor? first)) return null;
        if (options is null)
        {
            throw new InvalidInputException($"The tensor {first.Name} in {first.Source} is quantised, but config.json does not say how, expected a field \"{LlavaConfig.QuantizationField}\".");
        }
        if (want.Shape.Length != 2 || !QuantLayout.Fits(options.Format, want.Shape[1]))
            throw new InvalidInputException($"The tensor {first.Name} in {first.Source} is quantised, which a tensor of shape {WeightTensor.Format(want.Shape)} cannot be in the format {options.Format.Name()}.");
        var layout = new QuantLayout(options.Format, checked((int)want.Shape[0]), checked((int)want.Shape[1]));
        Dictionary<string, WeightTensor> parts = [];
        foreach ((string suffix, DType type, ImmutableArray<long> shape) in Of(layout))
        {
            string name = want.Name + suffix;
            if (!found.TryGetValue(name, out WeightTensor? part)) throw new InvalidInputException($"The tensor {name} of shape {WeightTensor.Format(shape)}, which belongs to {first.Name}, is missing in {source}.");
            if (part.DType != type || !part.Shape.SequenceEqual(shape))
            {
                throw new InvalidInputException(
                    $"The tensor {part.Name} in {part.Source} is {part.DType.Name()} {WeightTensor.Format(part.Shape)}, expected {type.Name()} {WeightTensor.Format(shape)} for {options.Format.Name()} weights of {WeightTensor.Format(want.Shape)}.");
            }
            parts.Add(suffix, part);
            used.Add(name);
        }
        nint absMax = 0;
        float offset = 0;
        if (layout.Format == QuantFormat.Nf4)
        {
            absMax = parts[AbsMax].Data;
            offset = Unsafe.ReadUnaligned<float>((void*)parts[Offset].Data);
        }
        var bytes = new QuantizedBytes(first.Data, parts[Scales].Data, absMax, offset);
        return new WeightTensor(first.Name[..^Codes.Length], new QuantizedTensor(layout, bytes, () => Array.ForEach([.. parts.Values], part => part.Release())), first.Source);
    }
}
