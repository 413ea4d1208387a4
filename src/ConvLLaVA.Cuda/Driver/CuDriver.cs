using System.Runtime.InteropServices;

namespace ConvLLaVA.Cuda;

/// <summary>The driver API under the exact names that the library exports, so that the headers' renaming between CUDA 12 and 13
/// does not matter. Handles are raw; the classes beside this one own them.</summary>
internal static unsafe partial class CuDriver
{
    private const string Library = CudaLibraries.DriverName;

    // Initialisation, errors, devices.
    [LibraryImport(Library)] public static partial CuResult cuInit(uint flags);
    [LibraryImport(Library)] public static partial CuResult cuDriverGetVersion(int* driverVersion);
    [LibraryImport(Library)] public static partial CuResult cuGetErrorName(CuResult error, byte** text);
    [LibraryImport(Library)] public static partial CuResult cuGetErrorString(CuResult error, byte** text);
    [LibraryImport(Library)] public static partial CuResult cuDeviceGetCount(int* count);
    [LibraryImport(Library)] public static partial CuResult cuDeviceGet(int* device, int ordinal);
    [LibraryImport(Library)] public static partial CuResult cuDeviceGetName(byte* name, int length, int device);
    [LibraryImport(Library)] public static partial CuResult cuDeviceTotalMem_v2(nuint* bytes, int device);
    [LibraryImport(Library)] public static partial CuResult cuDeviceGetAttribute(int* value, CuDeviceAttribute attribute, int device);
    [LibraryImport(Library)] public static partial CuResult cuDeviceGetUuid_v2(CuUuid* uuid, int device);

    // Contexts.
    [LibraryImport(Library)] public static partial CuResult cuDevicePrimaryCtxRetain(nint* context, int device);
    [LibraryImport(Library)] public static partial CuResult cuDevicePrimaryCtxRelease_v2(int device);
    [LibraryImport(Library)] public static partial CuResult cuDevicePrimaryCtxSetFlags_v2(int device, CuContextFlags flags);
    [LibraryImport(Library)] public static partial CuResult cuCtxSetCurrent(nint context);
    [LibraryImport(Library)] public static partial CuResult cuCtxGetCurrent(nint* context);
    [LibraryImport(Library)] public static partial CuResult cuCtxPushCurrent_v2(nint context);
    [LibraryImport(Library)] public static partial CuResult cuCtxPopCurrent_v2(nint* context);
    [LibraryImport(Library)] public static partial CuResult cuCtxSynchronize();
    [LibraryImport(Library)] public static partial CuResult cuCtxGetDevice(int* device);

    // Modules and functions.
    [LibraryImport(Library)] public static partial CuResult cuModuleLoadDataEx(nint* module, void* image, uint optionCount, CuJitOption* options, void** values);
    [LibraryImport(Library)] public static partial CuResult cuModuleUnload(nint module);
    [LibraryImport(Library)] public static partial CuResult cuModuleGetFunction(nint* function, nint module, byte* name);
    [LibraryImport(Library)] public static partial CuResult cuModuleGetGlobal_v2(ulong* address, nuint* bytes, nint module, byte* name);
    [LibraryImport(Library)] public static partial CuResult cuFuncSetAttribute(nint function, CuFunctionAttribute attribute, int value);
    [LibraryImport(Library)] public static partial CuResult cuFuncGetAttribute(int* value, CuFunctionAttribute attribute, nint function);
    [LibraryImport(Library)] public static partial CuResult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, nint function, int blockSize, nuint dynamicSharedBytes);

    // Launches.
    [LibraryImport(Library)]
    public static partial CuResult cuLaunchKernel(nint function, uint gridX, uint gridY, uint gridZ, uint blockX, uint blockY, uint blockZ,
        uint sharedBytes, nint stream, void** parameters, void** extra);

    [LibraryImport(Library)] public static partial CuResult cuLaunchKernelEx(CuLaunchConfig* config, nint function, void** parameters, void** extra);

    // Device and page-locked host memory.
    [LibraryImport(Library)] public static partial CuResult cuMemAlloc_v2(ulong* address, nuint bytes);
    [LibraryImport(Library)] public static partial CuResult cuMemFree_v2(ulong address);
    [LibraryImport(Library)] public static partial CuResult cuMemGetInfo_v2(nuint* free, nuint* total);
    [LibraryImport(Library)] public static partial CuResult cuMemAllocAsync(ulong* address, nuint bytes, nint stream);
    [LibraryImport(Library)] public static partial CuResult cuMemFreeAsync(ulong address, nint stream);
    [LibraryImport(Library)] public static partial CuResult cuDeviceGetDefaultMemPool(nint* pool, int device);
    [LibraryImport(Library)] public static partial CuResult cuMemPoolSetAttribute(nint pool, CuMemPoolAttribute attribute, void* value);
    [LibraryImport(Library)] public static partial CuResult cuMemPoolTrimTo(nint pool, nuint bytesToKeep);
    [LibraryImport(Library)] public static partial CuResult cuMemHostAlloc(void** pointer, nuint bytes, CuHostAllocFlags flags);
    [LibraryImport(Library)] public static partial CuResult cuMemFreeHost(void* pointer);
    [LibraryImport(Library)] public static partial CuResult cuMemHostRegister_v2(void* pointer, nuint bytes, CuHostRegisterFlags flags);
    [LibraryImport(Library)] public static partial CuResult cuMemHostUnregister(void* pointer);

    // Copies and fills.
    [LibraryImport(Library)] public static partial CuResult cuMemcpyHtoD_v2(ulong destination, void* source, nuint bytes);
    [LibraryImport(Library)] public static partial CuResult cuMemcpyDtoH_v2(void* destination, ulong source, nuint bytes);
    [LibraryImport(Library)] public static partial CuResult cuMemcpyHtoDAsync_v2(ulong destination, void* source, nuint bytes, nint stream);
    [LibraryImport(Library)] public static partial CuResult cuMemcpyDtoHAsync_v2(void* destination, ulong source, nuint bytes, nint stream);
    [LibraryImport(Library)] public static partial CuResult cuMemcpyDtoDAsync_v2(ulong destination, ulong source, nuint bytes, nint stream);
    [LibraryImport(Library)] public static partial CuResult cuMemsetD8Async(ulong destination, byte value, nuint count, nint stream);
    [LibraryImport(Library)] public static partial CuResult cuMemsetD16Async(ulong destination, ushort value, nuint count, nint stream);
    [LibraryImport(Library)] public static partial CuResult cuMemsetD32Async(ulong destination, uint value, nuint count, nint stream);

    // Streams and events. cuEventElapsedTime is the form that drivers before 12.8 have too; both give the same number.
    [LibraryImport(Library)] public static partial CuResult cuStreamCreateWithPriority(nint* stream, CuStreamFlags flags, int priority);
    [LibraryImport(Library)] public static partial CuResult cuStreamDestroy_v2(nint stream);
    [LibraryImport(Library)] public static partial CuResult cuStreamSynchronize(nint stream);
    [LibraryImport(Library)] public static partial CuResult cuStreamWaitEvent(nint stream, nint waitedFor, uint flags);
    [LibraryImport(Library)] public static partial CuResult cuStreamQuery(nint stream);
    [LibraryImport(Library)] public static partial CuResult cuEventCreate(nint* created, CuEventFlags flags);
    [LibraryImport(Library)] public static partial CuResult cuEventDestroy_v2(nint destroyed);
    [LibraryImport(Library)] public static partial CuResult cuEventRecord(nint recorded, nint stream);
    [LibraryImport(Library)] public static partial CuResult cuEventQuery(nint queried);
    [LibraryImport(Library)] public static partial CuResult cuEventSynchronize(nint waitedFor);
    [LibraryImport(Library)] public static partial CuResult cuEventElapsedTime(float* milliseconds, nint start, nint end);

    // Stream capture and graphs.
    [LibraryImport(Library)] public static partial CuResult cuStreamBeginCapture_v2(nint stream, CuStreamCaptureMode mode);
    [LibraryImport(Library)] public static partial CuResult cuStreamEndCapture(nint stream, nint* graph);
    [LibraryImport(Library)] public static partial CuResult cuStreamIsCapturing(nint stream, CuStreamCaptureStatus* status);
    [LibraryImport(Library)] public static partial CuResult cuGraphInstantiateWithFlags(nint* executable, nint graph, ulong flags);
    [LibraryImport(Library)] public static partial CuResult cuGraphExecUpdate_v2(nint executable, nint graph, CuGraphExecUpdateResultInfo* info);
    [LibraryImport(Library)] public static partial CuResult cuGraphLaunch(nint executable, nint stream);
    [LibraryImport(Library)] public static partial CuResult cuGraphUpload(nint executable, nint stream);
    [LibraryImport(Library)] public static partial CuResult cuGraphExecDestroy(nint executable);
    [LibraryImport(Library)] public static partial CuResult cuGraphDestroy(nint graph);
    [LibraryImport(Library)] public static partial CuResult cuGraphGetNodes(nint graph, nint* nodes, nuint* count);

    // Marks for NVIDIA's profilers.
    [LibraryImport(Library)] public static partial CuResult cuProfilerStart();
    [LibraryImport(Library)] public static partial CuResult cuProfilerStop();
}
