// Threads beyond the data leave early; the others wait for them in the barrier.
// launch: 2 96 0
// report: divergent barrier
#include "device.cuh"

KERNEL(96, 1) fault(const float* input, float* output, int count) {
    SHARED(float, row, 96);
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
#if FAULT
    if (i >= count - 5) return;
#endif
    row[threadIdx.x] = i < count - 5 ? input[i] : 0.0f;
    sync_block();
    output[i] = row[(threadIdx.x + 1) % 96];
}
