// One past the end of a shared array, into the next one.
// launch: 2 64 0
// report: shared memory out of bounds
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    SHARED(float, row, 64);
    SHARED(float, other, 64);
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    row[threadIdx.x] = input[i];
    other[threadIdx.x] = float(count);
    sync_block();
    output[i] = row[(threadIdx.x + 1) % (64 + FAULT)] + other[threadIdx.x];
}
