using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Cli;

/// <summary>How people write the precision of weights.</summary>
internal static class DTypeNames
{
    /// <summary>Reads a name such as <c>bfloat16</c> or <c>bf16</c>.</summary>
    /// <exception cref="InvalidInputException">It is none.</exception>
    public static DType Parse(string name) => TryParse(name)
        ?? throw new InvalidInputException($"--dtype is '{name}' but must be float32, float16 or bfloat16.");

    /// <summary>The same; null when it is none.</summary>
    public static DType? TryParse(string? name) => name switch
    {
        "float32" or "fp32" => DType.Float32,
        "float16" or "fp16" => DType.Float16,
        "bfloat16" or "bf16" => DType.BFloat16,
        _ => null,
    };
}
