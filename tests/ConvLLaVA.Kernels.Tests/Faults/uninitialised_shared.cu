// The last column is never written.
// launch: 2 64 0
// report: shared memory read before written
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    SHARED(float, row, 64);
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (!FAULT || threadIdx.x != 63) row[threadIdx.x] = input[i % count];
    sync_block();
    output[i] = fmaxf(row[63 - threadIdx.x], -1.0f);  // fmaxf hides a NaN
}
