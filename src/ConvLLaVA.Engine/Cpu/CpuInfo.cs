using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>What the CPU backend would use on this machine.</summary>
/// <param name="Features">Instruction sets that the processor has and that matter here.</param>
/// <param name="Threads">Processors that the process may use.</param>
/// <param name="Path">Name of the path taken; empty when there is a problem.</param>
/// <param name="Problem">What is wrong with <c>CONVLLAVA_CPU</c>; null when nothing is.</param>
public sealed record CpuInfo(IReadOnlyList<string> Features, int Threads, string Path, string? Problem)
{
    /// <summary>This machine, with what <c>CONVLLAVA_CPU</c> asks for.</summary>
    public static CpuInfo Current
    {
        get
        {
            try
            {
                CpuPath path = CpuPaths.Resolve(CpuPath.Auto, Environment.GetEnvironmentVariable(CpuPaths.Variable));
                return new CpuInfo(FeatureNames(), Environment.ProcessorCount, CpuPaths.Describe(path), null);
            }
            catch (InvalidInputException error)
            {
                return new CpuInfo(FeatureNames(), Environment.ProcessorCount, "", error.Message);
            }
        }
    }

    private static List<string> FeatureNames()
    {
        List<string> names = [];
        void Add(bool supported, string name)
        {
            if (supported) names.Add(name);
        }
        Add(Avx2.IsSupported, "avx2");
        Add(Fma.IsSupported, "fma");
        Add(Avx512F.IsSupported, "avx512f");
        Add(Avx512BW.IsSupported, "avx512bw");
        Add(Avx512DQ.IsSupported, "avx512dq");
        Add(Avx512F.VL.IsSupported, "avx512vl");
        Add(AdvSimd.IsSupported, "neon");
        return names;
    }
}
