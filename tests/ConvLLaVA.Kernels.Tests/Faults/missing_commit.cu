// A copy that was never committed belongs to no group: no wait covers it.
// launch: 1 32 0
// report: asynchronous copy not waited for
#include "device.cuh"

KERNEL(32, 1) fault(const float* input, float* output, int count) {
    SHARED(float, tile, 32 * 4);
    cp_async16(tile + threadIdx.x * 4, input + threadIdx.x / 4 * 4, int(threadIdx.x) < count);
#if !FAULT
    cp_async_commit();
#endif
    cp_async_wait<0>();
    sync_block();
    output[threadIdx.x] = tile[(threadIdx.x + 9) % 32 * 4 + 1];
}
