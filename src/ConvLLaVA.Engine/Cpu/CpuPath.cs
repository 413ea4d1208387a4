using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Which instructions the CPU backend uses. All paths compute the same bits; they differ in speed only.</summary>
public enum CpuPath
{
    /// <summary>The fastest path this machine supports, unless <c>CONVLLAVA_CPU</c> says otherwise.</summary>
    Auto,

    /// <summary>512-bit vectors (x86 with AVX-512 F, BW, DQ and VL).</summary>
    Avx512,

    /// <summary>256-bit vectors (x86 with AVX2 and FMA).</summary>
    Avx2,

    /// <summary>128-bit vectors (Arm, or x86).</summary>
    Vector128,

    /// <summary>One element at a time.</summary>
    Scalar,
}

/// <summary>Facts about each <see cref="CpuPath"/>.</summary>
internal static class CpuPaths
{
    /// <summary>The environment variable that stands in for <see cref="CpuPath.Auto"/>.</summary>
    public const string Variable = "CONVLLAVA_CPU";

    /// <summary>True when this machine can run <paramref name="path"/>.</summary>
    public static bool IsSupported(CpuPath path) => path switch
    {
        CpuPath.Avx512 => Avx512F.IsSupported && Avx512BW.IsSupported && Avx512DQ.IsSupported && Avx512F.VL.IsSupported,
        CpuPath.Avx2 => Avx2.IsSupported && Fma.IsSupported,
        CpuPath.Vector128 => Vector128.IsHardwareAccelerated,
        _ => true,
    };

    /// <summary>Replaces Auto by what <paramref name="variable"/> (the value of <c>CONVLLAVA_CPU</c>) asks for or else by the fastest path.</summary>
    /// <exception cref="InvalidInputException">The value is unknown, or the path is not supported here.</exception>
    public static CpuPath Resolve(CpuPath path, string? variable)
    {
        if (!Enum.IsDefined(path)) throw new InvalidInputException($"CPU path {(int)path} does not exist.");
        string asked = "The CPU path asked for";
        if (path == CpuPath.Auto && !string.IsNullOrWhiteSpace(variable))
        {
            path = variable.Trim().ToLowerInvariant() switch
            {
                "auto" => CpuPath.Auto,
                "avx512" => CpuPath.Avx512,
                "avx2" => CpuPath.Avx2,
                "vector128" => CpuPath.Vector128,
                "scalar" => CpuPath.Scalar,
                _ => throw new InvalidInputException($"{Variable}={variable} is not known; it can be avx512, avx2, vector128 or scalar."),
            };
            asked = $"{Variable}={variable}";
        }
        if (path == CpuPath.Auto)
        {
            // Some processors slow their clock for 512-bit work; the runtime knows them.
            if (Vector512.IsHardwareAccelerated && IsSupported(CpuPath.Avx512)) return CpuPath.Avx512;
            if (IsSupported(CpuPath.Avx2)) return CpuPath.Avx2;
            return IsSupported(CpuPath.Vector128) ? CpuPath.Vector128 : CpuPath.Scalar;
        }
        return IsSupported(path) ? path : throw new InvalidInputException($"{asked} ({Describe(path)}) is not supported by this machine.");
    }

    /// <summary>Name for people.</summary>
    public static string Describe(CpuPath path) => path switch
    {
        CpuPath.Avx512 => "AVX-512",
        CpuPath.Avx2 => "AVX2",
        CpuPath.Vector128 => "128-bit vectors",
        CpuPath.Scalar => "scalar",
        _ => "auto",
    };
}
