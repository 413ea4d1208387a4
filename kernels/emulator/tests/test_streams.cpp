#include "check.h"

static void test_deferred() {
    Device device;
    const CUstream stream = new_stream();
    const CUdeviceptr p = allocate(64);
    int* const host = pinned<int>(16);
    for (int i = 0; i < 16; ++i) host[i] = i;
    OK(cuMemcpyHtoDAsync_v2(p, host, 64, stream));
    OK(cuStreamSynchronize(stream));
    int* const back = pinned<int>(16);
    for (int i = 0; i < 16; ++i) back[i] = 77;
    OK(cuMemcpyDtoHAsync_v2(back, p, 64, stream));
    EXPECT_TRUE(back[3] != 3 && back[3] != 77);  // not there yet, and what was there does not pass for it
    EXPECT(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    OK(cuStreamQuery(stream));
    EXPECT(back[3], 3);

    // Pinned memory that is overwritten before its copy ran: the copy sees the new bytes. Pageable memory is read at the call.
    host[0] = 1;
    OK(cuMemcpyHtoDAsync_v2(p, host, 4, stream));
    host[0] = 2;
    int pageable = 5;
    OK(cuMemcpyHtoDAsync_v2(p + 4, &pageable, 4, stream));
    pageable = 6;
    int got[2] = {};
    OK(cuMemcpyDtoHAsync_v2(got, p, 8, stream));  // to pageable memory: complete when the call returns
    EXPECT(got[0], 2);
    EXPECT(got[1], 5);
    EXPECT(emuCounter("pageable_copy"), 2);

    // In eager order the same copy sees the old bytes.
    OK(emuConfigure("streams", "eager"));
    host[0] = 1;
    OK(cuMemcpyHtoDAsync_v2(p, host, 4, stream));
    host[0] = 2;
    OK(cuMemcpyDtoHAsync_v2(got, p, 4, stream));
    EXPECT(got[0], 1);
    EXPECT(emuConfigure("streams", "sideways"), 1);
}

static void test_order() {
    for (const char* order : {"lazy", "eager", "random:1", "random:2"}) {
        Device device;
        OK(emuConfigure("streams", order));
        const CUstream a = new_stream(), b = new_stream();
        const CUdeviceptr p = allocate(1024), q = allocate(1024);
        CUevent written = nullptr;
        OK(cuEventCreate(&written, CU_EVENT_DISABLE_TIMING));
        OK(cuMemsetD8Async(p, 7, 1024, a));
        OK(cuEventRecord(written, a));
        OK(cuStreamWaitEvent(b, written, 0));
        OK(cuMemcpyDtoDAsync_v2(q, p, 1024, b));
        OK(cuStreamSynchronize(b));
        unsigned char byte = 0;
        OK(cuMemcpyDtoH_v2(&byte, q + 1023, 1));
        EXPECT(byte, 7);
        // The host waited for b, and b for a: work in a third stream may use p.
        const CUstream c = new_stream();
        OK(cuMemsetD8Async(p, 8, 1024, c));
        OK(cuStreamSynchronize(c));
        EXPECT_TRUE(last_report().empty());

        // The same without the event.
        OK(cuMemsetD8Async(p, 9, 1024, a));
        const CUresult issued = cuMemcpyDtoDAsync_v2(q, p, 1024, b);
        if (std::strcmp(order, "lazy") == 0) OK(issued);
        EXPECT(cuStreamSynchronize(b), CUDA_ERROR_LAUNCH_FAILED);
        EXPECT_TRUE(reported("no event or wait orders the two"));
        EXPECT(cuStreamSynchronize(a), CUDA_ERROR_LAUNCH_FAILED);
    }
}

static void test_legacy() {
    Device device;
    CUstream blocking = nullptr;
    OK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
    const CUstream other = new_stream();
    const CUdeviceptr p = allocate(64);
    unsigned char byte = 0;
    OK(cuMemsetD8Async(p, 1, 64, blocking));
    OK(cuMemcpyDtoH_v2(&byte, p, 1));  // the default stream waits for the blocking one
    EXPECT(byte, 1);
    OK(cuMemsetD8Async(p, 2, 64, nullptr));
    OK(cuMemsetD8Async(p, 3, 64, blocking));  // and the blocking one for it
    OK(cuStreamSynchronize(blocking));
    OK(cuMemcpyDtoH_v2(&byte, p, 1));
    EXPECT(byte, 3);
    OK(cuMemsetD8Async(p, 4, 64, other));  // a non-blocking stream is not ordered with it
    OK(cuMemsetD8Async(p, 5, 64, nullptr));
    EXPECT(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
}

static void test_handles() {
    Device device;
    const CUstream stream = new_stream();
    CUevent event = nullptr, second = nullptr;
    OK(cuEventCreate(&event, 0));
    OK(cuEventCreate(&second, 0));
    EXPECT(cuEventCreate(&event, 8), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuStreamCreateWithPriority(nullptr, 0, 0), CUDA_ERROR_INVALID_VALUE);
    OK(cuEventQuery(event));  // never recorded
    OK(cuStreamWaitEvent(stream, event, 0));
    float milliseconds = -1;
    EXPECT(cuEventElapsedTime(&milliseconds, event, second), CUDA_ERROR_INVALID_HANDLE);
    OK(cuEventRecord(event, stream));
    OK(cuEventRecord(second, stream));
    EXPECT(cuEventElapsedTime(&milliseconds, event, second), CUDA_ERROR_NOT_READY);
    EXPECT(cuEventQuery(second), CUDA_ERROR_NOT_READY);
    OK(cuEventSynchronize(second));
    OK(cuEventQuery(second));
    OK(cuEventElapsedTime_v2(&milliseconds, event, second));
    EXPECT_TRUE(milliseconds >= 0);
    OK(cuEventDestroy_v2(event));
    EXPECT(cuEventRecord(event, stream), CUDA_ERROR_INVALID_HANDLE);
    EXPECT(cuEventDestroy_v2(event), CUDA_ERROR_INVALID_HANDLE);
    EXPECT(cuStreamSynchronize(reinterpret_cast<CUstream>(second)), CUDA_ERROR_INVALID_HANDLE);  // an event is no stream
    EXPECT(cuStreamSynchronize(reinterpret_cast<CUstream>(uintptr_t(0x1234560))), CUDA_ERROR_INVALID_HANDLE);
    OK(cuStreamDestroy_v2(stream));
    EXPECT(cuStreamSynchronize(stream), CUDA_ERROR_INVALID_HANDLE);
    EXPECT(cuStreamDestroy_v2(stream), CUDA_ERROR_INVALID_HANDLE);
    EXPECT(cuStreamDestroy_v2(nullptr), CUDA_ERROR_INVALID_HANDLE);
    int called = 0;
    OK(cuLaunchHostFunc(nullptr, [](void* data) { ++*static_cast<int*>(data); }, &called));
    OK(cuStreamSynchronize(nullptr));
    EXPECT(called, 1);
}

void test_streams() {
    test_deferred();
    test_order();
    test_legacy();
    test_handles();
}
