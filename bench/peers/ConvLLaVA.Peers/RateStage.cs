using System.Globalization;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Instruments;
using ConvLLaVA.Engine.Tensors;
using TorchSharp;

namespace ConvLLaVA.Peers;

/// <summary>The machine and what it does at best.</summary>
internal static class RateStage
{
    public static void Run(PeerOptions options, PeerRecord record, Action<string> say)
    {
        say("rates of the machine");
        Ceilings best = Benchmark.MeasureCeilings("synth:tiny", new LoadOptions { Device = Device.Cpu, Threads = options.Threads, WeightType = DType.Float32 });
        record.Rates = new RateFacts(1000 * best.FmaTeraflopsPerSecond!.Value, best.ReadGigabytesPerSecond!.Value, best.CopyGigabytesPerSecond, 1000 * best.GemmTeraflopsPerSecond);
        say($"  multiply-adds {record.Rates.FmaGflops:F1} Gflop/s, read {record.Rates.ReadGbS:F1} GB/s, copy {record.Rates.CopyGbS:F1} GB/s, product 1024 {record.Rates.GemmGflops:F1} Gflop/s");
        record.Machine = new MachineFacts(Field("/proc/cpuinfo", "model name"), Avx512F.IsSupported ? "AVX-512" : Avx2.IsSupported ? "AVX2" : "128-bit vectors",
            options.Threads, Math.Round(GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / 1e9, 1), RuntimeInformation.OSDescription);
        record.Versions[".NET"] = Environment.Version.ToString();
        record.Versions["libtorch"] = torch.__version__ + string.Create(CultureInfo.InvariantCulture, $", TorchSharp {typeof(torch).Assembly.GetName().Version?.ToString(3)}, {torch.get_num_threads()} threads");
    }

    private static string Field(string file, string name)
        => File.ReadLines(file).FirstOrDefault(line => line.StartsWith(name, StringComparison.Ordinal))?.Split(':', 2)[1].Trim() ?? "";
}
