namespace ConvLLaVA.Engine.Instruments;

/// <summary>A measured row.</summary>
/// <param name="Name">What was measured.</param>
/// <param name="Ms">Milliseconds.</param>
/// <param name="Bytes">Bytes it must move at least.</param>
/// <param name="Flops">Floating-point operations.</param>
/// <param name="GbS">Gigabytes a second.</param>
/// <param name="TflopS">Teraflops a second.</param>
/// <param name="PercentOfCopy">Of the copy bandwidth of the same run.</param>
/// <param name="PercentOfGemm">Of the matrix-product rate of the same run.</param>
/// <param name="PercentOfRead">Of the read bandwidth of the same run, on the CPU.</param>
/// <param name="PercentOfFma">Of the multiply-add peak of the same run, on the CPU.</param>
public sealed record BenchRow(string Name, Timing Ms, long Bytes, long Flops, double GbS, double TflopS, double? PercentOfCopy, double? PercentOfGemm,
    double? PercentOfRead = null, double? PercentOfFma = null)
{
    internal static BenchRow Of(string name, Timing ms, long bytes, long flops, Ceilings? ceilings)
    {
        double rate = bytes / ms.Median / 1e6, speed = flops / ms.Median / 1e9;
        return new BenchRow(name, ms, bytes, flops, rate, speed, 100 * rate / ceilings?.CopyGigabytesPerSecond, 100 * speed / ceilings?.GemmTeraflopsPerSecond,
            100 * rate / ceilings?.ReadGigabytesPerSecond, 100 * speed / ceilings?.FmaTeraflopsPerSecond);
    }
}

/// <summary>Ceilings as a report writes them.</summary>
/// <param name="CopyGbS">Copy bandwidth, bytes read plus bytes written.</param>
/// <param name="GemmTflopS">Matrix-product rate.</param>
/// <param name="ReadGbS">Read bandwidth, on the CPU.</param>
/// <param name="FmaTflopS">Peak of fused multiply-adds, on the CPU.</param>
public sealed record BenchCeilings(double CopyGbS, double GemmTflopS, double? ReadGbS = null, double? FmaTflopS = null);

/// <summary>Everything one run of the benchmark found.</summary>
/// <param name="Schema">Version of this format.</param>
/// <param name="Date">When.</param>
/// <param name="Model">Which model.</param>
/// <param name="Backend">What it ran on, as it calls itself.</param>
/// <param name="Dtype">Precision of weights.</param>
/// <param name="Engine">Version of the engine.</param>
/// <param name="ChecksPassed">Operations that agreed with the reference before anything was timed.</param>
/// <param name="Ceilings">Measured in the same run.</param>
/// <param name="Rows">The times.</param>
/// <param name="Memory">Memory after loading and one answer, when loading was measured.</param>
public sealed record BenchReport(int Schema, DateTimeOffset Date, string Model, string Backend, string Dtype, string Engine, int ChecksPassed, BenchCeilings Ceilings, IReadOnlyList<BenchRow> Rows,
    BenchMemory? Memory = null);
