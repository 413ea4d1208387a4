// One thread clears a counter while others already add to it.
// launch: 2 64 0
// report: shared memory race | shared memory read before written
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    SHARED(int, counter, 1);
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (threadIdx.x == 0) counter[0] = 0;
#if !FAULT
    sync_block();
#endif
    if (input[i % count] > 0.0f) atomic_add(&counter[0], 1);
    sync_block();
    output[i] = float(counter[0]);
}
