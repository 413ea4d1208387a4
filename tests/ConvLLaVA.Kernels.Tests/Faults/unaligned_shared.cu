// Rows of 33 floats keep columns apart, but they do not start at multiples of 16 bytes.
// launch: 1 32 0
// report: unaligned shared access
#include "device.cuh"

KERNEL(32, 1) fault(const float* input, float* output, int count) {
    constexpr int stride = FAULT ? 33 : 36;
    SHARED(float, tile, 32 * stride);
    for (int k = 0; k < 32; ++k) tile[k * stride + int(threadIdx.x)] = input[(k + int(threadIdx.x)) % count];
    sync_warp();
    output[threadIdx.x] = load16(tile + threadIdx.x * stride).get(2);
}
