// Half of the block meets at another barrier than the other half.
// launch: 1 64 0
// report: divergent barrier
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    SHARED(float, row, 64);
    row[threadIdx.x] = input[threadIdx.x];
#if FAULT
    if (threadIdx.x % 2 == 0) {
        sync_block();
    } else {
        sync_block();
    }
#else
    sync_block();
#endif
    output[threadIdx.x] = row[count - 1 - int(threadIdx.x)];
}
