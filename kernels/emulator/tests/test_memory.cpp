#include "check.h"

#include <cmath>

void test_memory() {
    Device device;
    CUdeviceptr address = 0;
    EXPECT(cuMemAlloc_v2(&address, 0), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemAlloc_v2(nullptr, 16), CUDA_ERROR_INVALID_VALUE);

    // The limit, and what is left.
    OK(emuConfigure("memory", "1M"));
    size_t free_bytes = 0, total = 0;
    const CUdeviceptr half = allocate(512 << 10);
    EXPECT(half % 256, 0);
    OK(cuMemGetInfo_v2(&free_bytes, &total));
    EXPECT(total, 1 << 20);
    EXPECT(free_bytes, 512 << 10);
    EXPECT(cuMemAlloc_v2(&address, (512 << 10) + 1), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT(cuMemAlloc_v2(&address, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemFree_v2(half));
    EXPECT(cuMemFree_v2(half), CUDA_ERROR_INVALID_VALUE);  // twice
    EXPECT(cuMemFree_v2(half + 256), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFree_v2(0));
    EXPECT(emuCounter("live_bytes"), 0);
    EXPECT(emuCounter("peak_bytes"), 512 << 10);
    OK(emuConfigure("memory", "8G"));

    // Fresh memory is NaN, in small and in mapped allocations; both can be written.
    for (const size_t bytes : {size_t(1000), size_t(40) << 20}) {
        const CUdeviceptr p = allocate(bytes);
        float values[2] = {};
        OK(cuMemcpyDtoH_v2(values, p, 8));
        EXPECT_TRUE(std::isnan(values[0]) && std::isnan(values[1]));
        OK(cuMemcpyDtoH_v2(values, p + bytes - 8, 8));
        EXPECT_TRUE(std::isnan(values[1]));
        values[0] = 1, values[1] = 2;
        OK(cuMemcpyHtoD_v2(p + bytes - 8, values, 8));
        float back[2] = {};
        OK(cuMemcpyDtoH_v2(back, p + bytes - 8, 8));
        EXPECT_TRUE(back[0] == 1 && back[1] == 2);
        EXPECT(cuMemcpyDtoH_v2(back, p + bytes - 4, 8), CUDA_ERROR_INVALID_VALUE);  // past the end
        EXPECT(cuMemcpyHtoD_v2(p - 4, back, 8), CUDA_ERROR_INVALID_VALUE);
        OK(cuMemFree_v2(p));
        EXPECT(cuMemcpyDtoH_v2(back, p, 8), CUDA_ERROR_INVALID_VALUE);  // freed
    }

    // Host memory.
    void* host = nullptr;
    EXPECT(cuMemHostAlloc(&host, 0, 0), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemHostAlloc(&host, 16, 64), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemHostAlloc(&host, 100, 0));
    const CUdeviceptr p = allocate(256);
    EXPECT(cuMemcpyHtoD_v2(p, host, 200), CUDA_ERROR_INVALID_VALUE);  // past the pinned memory
    OK(cuMemcpyHtoD_v2(p, host, 100));
    EXPECT(cuMemcpyHtoD_v2(p, reinterpret_cast<void*>(uintptr_t(p)), 16), CUDA_ERROR_INVALID_VALUE);  // device memory as host memory
    EXPECT(cuMemcpyHtoD_v2(p, reinterpret_cast<void*>(8), 16), CUDA_ERROR_INVALID_VALUE);             // nobody's
    EXPECT(cuMemFree_v2(reinterpret_cast<uintptr_t>(host)), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFreeHost(host));
    EXPECT(cuMemFreeHost(host), CUDA_ERROR_INVALID_VALUE);
    std::vector<char> own(4096);
    EXPECT(cuMemHostUnregister(own.data()), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    OK(cuMemHostRegister_v2(own.data(), own.size(), 0));
    EXPECT(cuMemHostRegister_v2(own.data() + 16, 16, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    OK(cuMemHostUnregister(own.data()));

    // Fills.
    OK(cuMemsetD32Async(p, 0x3f800000, 64, nullptr));
    float one = 0;
    OK(cuMemcpyDtoH_v2(&one, p + 252, 4));
    EXPECT_TRUE(one == 1.0f);
    EXPECT(cuMemsetD32Async(p + 2, 0, 1, nullptr), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemsetD32Async(p, 0, 65, nullptr), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFree_v2(p));

    // The pool.
    CUmemoryPool pool = nullptr;
    uint64_t threshold = UINT64_MAX;
    OK(cuDeviceGetDefaultMemPool(&pool, 0));
    OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
    EXPECT(cuMemPoolSetAttribute(nullptr, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold), CUDA_ERROR_INVALID_HANDLE);
    const CUstream stream = new_stream();
    OK(cuMemAllocAsync(&address, 1024, stream));
    OK(cuMemsetD8Async(address, 0, 1024, stream));
    OK(cuMemFreeAsync(address, stream));
    EXPECT(cuMemsetD8Async(address, 0, 1024, stream), CUDA_ERROR_INVALID_VALUE);  // after the free was issued
    EXPECT(cuMemFreeAsync(address, stream), CUDA_ERROR_INVALID_VALUE);
    OK(cuStreamSynchronize(stream));
    EXPECT(emuCounter("live_bytes"), 0);

    // Faults at the n-th call, then no more.
    OK(emuInjectFault("alloc:2,host_alloc:1"));
    const CUdeviceptr first = allocate(16);
    EXPECT(cuMemAlloc_v2(&address, 16), CUDA_ERROR_OUT_OF_MEMORY);
    const CUdeviceptr third = allocate(16);
    EXPECT(cuMemHostAlloc(&host, 16, 0), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemFree_v2(first));
    OK(cuMemFree_v2(third));
    EXPECT(emuInjectFault("alloc"), 1);
    EXPECT(emuInjectFault("alloc:0"), 1);
    OK(emuInjectFault("alloc:5"));
    OK(emuInjectFault(""));

    // A copy that fails on the device: the error stays until the context goes.
    OK(emuInjectFault("copy:1"));
    const CUdeviceptr q = allocate(16);
    char* const bytes = pinned<char>(16);
    OK(cuMemcpyHtoDAsync_v2(q, bytes, 16, stream));
    EXPECT(cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
    EXPECT(cuMemAlloc_v2(&address, 16), CUDA_ERROR_ILLEGAL_ADDRESS);
    EXPECT(cuMemFree_v2(q), CUDA_ERROR_ILLEGAL_ADDRESS);
    EXPECT_TRUE(reported("injected"));
    OK(cuDevicePrimaryCtxRelease_v2(0));
    CUcontext context = nullptr;
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    OK(cuMemAlloc_v2(&address, 16));
    EXPECT(emuCounter("live_bytes"), 512);
}
