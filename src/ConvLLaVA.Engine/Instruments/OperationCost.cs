namespace ConvLLaVA.Engine.Instruments;

/// <summary>What an operation must move and compute at least: every input, weight and output once.</summary>
/// <param name="Name">Name for people.</param>
/// <param name="Bytes">Bytes read and written.</param>
/// <param name="Flops">Floating-point operations; a multiplication and an addition count two.</param>
public readonly record struct OperationCost(string Name, long Bytes, long Flops);
