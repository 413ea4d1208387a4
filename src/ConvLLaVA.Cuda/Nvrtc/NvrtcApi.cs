using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>NVRTC, NVIDIA's run-time compiler, as exported by CUDA 12 and 13.</summary>
internal static unsafe partial class NvrtcApi
{
    private const string Library = CudaLibraries.NvrtcName;

    [LibraryImport(Library)] public static partial NvrtcResult nvrtcVersion(int* major, int* minor);
    [LibraryImport(Library)] public static partial byte* nvrtcGetErrorString(NvrtcResult result);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcGetNumSupportedArchs(int* count);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcGetSupportedArchs(int* architectures);
    [LibraryImport(Library)]
    public static partial NvrtcResult nvrtcCreateProgram(nint* program, byte* source, byte* name, int headerCount, byte** headers, byte** includeNames);

    [LibraryImport(Library)] public static partial NvrtcResult nvrtcDestroyProgram(nint* program);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcCompileProgram(nint program, int optionCount, byte** options);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcGetProgramLogSize(nint program, nuint* size);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcGetProgramLog(nint program, byte* log);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcGetCUBINSize(nint program, nuint* size);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcGetCUBIN(nint program, byte* cubin);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcGetPTXSize(nint program, nuint* size);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcGetPTX(nint program, byte* ptx);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcAddNameExpression(nint program, byte* expression);
    [LibraryImport(Library)] public static partial NvrtcResult nvrtcGetLoweredName(nint program, byte* expression, byte** lowered);
}
