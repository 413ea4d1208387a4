using BenchmarkDotNet.Running;
using ConvLLaVA.Bench;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

if (args is ["micro", ..])
{
    // What follows goes to BenchmarkDotNet: --filter '*Sampler*', --list flat, --job short, …
    return BenchmarkSwitcher.FromAssembly(typeof(AccuracyRun).Assembly).Run(args[1..]).Any(summary => summary.HasCriticalValidationErrors) ? 1 : 0;
}
if (args is not ["accuracy", var data, var model, ..])
{
    Console.Error.WriteLine("usage: ConvLLaVA.Bench accuracy DATA_DIR MODEL_DIR [--out FILE.jsonl] [--reference FILE.jsonl] [--quantize FORMAT [--quantize-vision] [--quantize-lm-head]]");
    Console.Error.WriteLine("       ConvLLaVA.Bench micro [--filter GLOB] [--list flat] [BenchmarkDotNet's options]");
    return 2;
}
try
{
    await AccuracyRun.RunAsync(data, model, Value("--out"), Value("--reference"), Quantization());
    return 0;
}
catch (Exception e) when (e is ConvLlavaException or IOException)
{
    Console.Error.WriteLine(e.Message);
    return e is InvalidInputException ? 2 : 1;
}

QuantOptions? Quantization()
{
    if (Value("--quantize") is not { } name) return null;
    QuantFormat format = QuantFormats.TryParse(name) ?? throw new InvalidInputException($"--quantize is '{name}' but must be one of {QuantFormats.AllNames}.");
    return new QuantOptions(format, args.Contains("--quantize-vision"), args.Contains("--quantize-lm-head"));
}

string? Value(string option) => Array.IndexOf(args, option) is var i and > 0 && i + 1 < args.Length ? args[i + 1] : null;
