using System.Diagnostics;
using System.Text.RegularExpressions;
using ConvLLaVA.Engine.Gpu;
using Xunit;

namespace ConvLLaVA.Nvrtc.Tests;

/// <summary>What ptxas made of the kernels' promises: the instructions that decide their speed are in the machine code.</summary>
public sealed partial class SassTests
{
    /// <summary>(kernel, instruction, at least so many).</summary>
    private static readonly (string Kernel, string Instruction, int Least)[] Promises =
    [
        ("gemv", @"LDG\S*\.128", 16), ("gemv_qkv", @"LDG\S*\.128", 16), ("dequantise", @"LDG\S*\.128", 1), ("dequantise", @"STG\S*\.128", 2), ("depthwise_norm", @"LDG\S*\.128", 28), ("depthwise_norm", @"STG\S*\.128", 2),
        ("layer_norm", @"LDG\S*\.128", 4), ("norm_gather", @"LDG\S*\.128", 4), ("rms_norm", @"LDG\S*\.128", 2), ("gather_rms_norm", @"LDG\S*\.128", 2),
        ("bias_activation", @"LDG\S*\.128", 1), ("bias_activation", @"STG\S*\.128", 1), ("gather_patches", @"STG\S*\.128", 1),
        ("attention_decode", @"LDG\S*\.128", 8), ("attention_prefill", @"LDGSTS\S*\.128", 4), ("attention_prefill", "HMMA", 16), ("attention_prefill", "LDSM", 8),
    ];

    [Theory]
    [InlineData("sm_80")]
    [InlineData("sm_90a")]
    public void Promised_instructions_are_there(string architecture)
    {
        RealNvrtc.SkipWithout();
        if (RealNvrtc.Disassembler is not { } disassembler)
        {
            Assert.Skip("nvdisasm is needed (shared/cuda/bin or in PATH).");
            return;
        }
        string[] names = [.. Promises.Select(promise => promise.Kernel).Distinct()];
        IReadOnlyList<CompiledSpec> compiled = Specialisations.Compile(
            [.. Specialisations.For(architecture).Where(spec => names.Any(name => spec.File == name + ".cu") || spec.File == "rms_norm.cu"), .. Specialisations.Quantised(architecture)], architecture);
        var missing = new List<string>();
        var seen = new HashSet<string>();
        foreach (CompiledSpec spec in compiled)
        {
            IReadOnlyDictionary<string, string> bodies = Disassemble(disassembler, spec.Code);
            foreach ((string kernel, string instruction, int least) in Promises)
            {
                if (!bodies.TryGetValue(kernel, out string? body)) continue;
                seen.Add(kernel);
                int count = Regex.Count(body, $@"\b{instruction}\b");
                if (count < least) missing.Add($"{kernel} of {spec.Spec} for {architecture} has {count} of {instruction}, not {least}");
            }
        }
        Assert.Equal(names.Order(), seen.Order());
        Assert.True(missing.Count == 0, string.Join('\n', missing));
    }

    /// <summary>The kernel has the arithmetic of a value nine times: for a pack of eight, and for rows that are no packs. Besides it there are
    /// addresses, of which one FFMA and one MUFU belong to a division.</summary>
    [Theory]
    [InlineData("sm_80")]
    [InlineData("sm_90a")]
    public void Gelu_has_the_flops_that_are_counted_for_it(string architecture)
    {
        RealNvrtc.SkipWithout();
        if (RealNvrtc.Disassembler is not { } disassembler)
        {
            Assert.Skip("nvdisasm is needed (shared/cuda/bin or in PATH).");
            return;
        }
        CompiledSpec gelu = Specialisations.Compile([.. Specialisations.For(architecture).Where(spec => spec.File == "bias_activation.cu" && spec.Constants.Contains("BF16", StringComparison.Ordinal))], architecture).Single();
        string body = Disassemble(disassembler, gelu.Code)["bias_activation"];
        int flops = 2 * Count("FFMA") + Count("FMUL") + Count("FADD") + Count("MUFU");
        Assert.Equal(GpuKernels.GeluFlops, flops / 9);
        Assert.InRange(flops % 9, 0, 3);

        int Count(string instruction) => Regex.Count(body, $@"\b{instruction}\b");
    }

    private static IReadOnlyDictionary<string, string> Disassemble(string disassembler, byte[] code)
    {
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(file, code);
            var start = new ProcessStartInfo(disassembler, ["-c", file]) { RedirectStandardOutput = true, RedirectStandardError = true };
            using Process process = Process.Start(start)!;
            Task<string> errors = process.StandardError.ReadToEndAsync();
            string text = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            Assert.True(process.ExitCode == 0, errors.Result);
            return Section().Matches(text).ToDictionary(match => match.Groups["name"].Value, match => match.Groups["body"].Value);
        }
        finally
        {
            File.Delete(file);
        }
    }

    [GeneratedRegex(@"\.section\t\.text\.(?<name>\w+),.*?\n(?<body>.*?)(?=\n//-----|\z)", RegexOptions.Singleline)]
    private static partial Regex Section();
}
