namespace ConvLLaVA.Peers;

/// <summary>What the engine was meant to reach, as a ratio, and what it reaches.</summary>
internal sealed record Aim(string What, double Least, double Reached)
{
    /// <summary>Every aim that the record has figures for.</summary>
    public static IEnumerable<Aim> Of(PeerRecord record)
    {
        if (record.Rates is { } rates)
        {
            yield return new Aim("fp32 product 1024 x 1024 x 1024, of the multiply-adds", 0.8, rates.GemmGflops / rates.FmaGflops);
            OperationTime[] stage = [.. record.Operations.Where(operation => operation.Part == "encoder fp32" && (operation.Name.EndsWith(", 768] -> 3072", StringComparison.Ordinal) || operation.Name.EndsWith(", 3072] -> 768", StringComparison.Ordinal)))];
            if (stage.Length > 0)
                yield return new Aim("fp32 products of the encoder's third stage, of the multiply-adds", 0.65, stage.Sum(operation => operation.Flops) / stage.Sum(operation => operation.Ms) / 1e6 / rates.FmaGflops);
        }
        if (record.ReadBesideDecodeGbS is { } read && record.Times.FirstOrDefault(time => time.Work == LlamaStage.DecodeName && time.Contestant == "this engine bf16") is { } decode)
            yield return new Aim("decode bf16, weights and pages, of reading memory in the same rounds", 0.9, (LlamaStage.DecodeBytes(2) + LlamaStage.DecodePageBytes()) / decode.Ms.Median / 1e6 / read);
        Comparison[] rows = [.. Comparison.Of(record)];
        // Of a program measured in two layouts its faster one counts.
        (string What, string Work, string Class, string Program, double Least)[] against =
        [
            ("encoder fp32 beside libtorch", EncoderStage.Work, "fp32", "libtorch", 1.2),
            ("decode 16 bits beside llama.cpp f16", LlamaStage.DecodeName, "16 bits", "llama.cpp", 1.0),
            ("decode q8 beside llama.cpp q8_0", LlamaStage.DecodeName, "q8", "llama.cpp", 1.1),
            ("decode q4 beside llama.cpp q4_0", LlamaStage.DecodeName, "q4", "llama.cpp", 1.1),
            ("prefill 16 bits beside llama.cpp f16", LlamaStage.PrefillName, "16 bits", "llama.cpp", 1.3),
            ("prefill q8 beside llama.cpp q8_0", LlamaStage.PrefillName, "q8", "llama.cpp", 0.8),
            ("photo to encoder input beside Pillow", ImageStage.WholeWork, ImageStage.Class, "Pillow", 1.0),
        ];
        foreach ((string what, string work, string weightClass, string program, double least) in against)
        {
            double[] ratios = [.. rows.Where(row => row.Work == work && row.Class == weightClass && row.Program == program).Select(row => row.Ratio)];
            if (ratios.Length > 0) yield return new Aim(what, least, ratios.Min());
        }
    }
}
