using System.Text.Json.Serialization;
using ConvLLaVA.Engine.Instruments;

namespace ConvLLaVA.Cli;

/// <summary>How the instruments' results are written.</summary>
[JsonSerializable(typeof(BenchReport))]
[JsonSerializable(typeof(SelftestReport))]
[JsonSerializable(typeof(ProfileLine[]))]
[JsonSerializable(typeof(KernelReport))]
[JsonSerializable(typeof(BindingCheck[]))]
[JsonSerializable(typeof(ComparisonReport))]
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, WriteIndented = true)]
internal sealed partial class InstrumentJson : JsonSerializerContext;
