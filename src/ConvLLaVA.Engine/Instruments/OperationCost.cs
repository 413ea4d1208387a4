using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>What an operation must move and compute at least: every input, weight and output once.</summary>
/// <param name="Name">Name for people.</param>
/// <param name="Bytes">Bytes read and written.</param>
/// <param name="Flops">Floating-point operations; a multiplication and an addition count two.</param>
/// <param name="Rows">Rows of the input.</param>
/// <param name="Inputs">Columns of the input.</param>
/// <param name="Outputs">Columns of the output.</param>
public readonly record struct OperationCost(string Name, long Bytes, long Flops, int Rows = 0, int Inputs = 0, int Outputs = 0)
{
    /// <summary>The matrices it multiplies by, in order; null for none. Costs are equal without regard to them: layers of one shape cost the same.</summary>
    public IReadOnlyList<LinearWeight>? Weights { get; init; }

    /// <summary>Whether name, amounts and shape are the same.</summary>
    public bool Equals(OperationCost other)
        => (Name, Bytes, Flops, Rows, Inputs, Outputs) == (other.Name, other.Bytes, other.Flops, other.Rows, other.Inputs, other.Outputs);

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(Name, Bytes, Flops, Rows, Inputs, Outputs);

    /// <summary>Name and shape.</summary>
    public string Described => Inputs == 0 ? Name : Inputs == Outputs ? $"{Name} [{Rows}, {Inputs}]" : $"{Name} [{Rows}, {Inputs}] -> {Outputs}";
}
