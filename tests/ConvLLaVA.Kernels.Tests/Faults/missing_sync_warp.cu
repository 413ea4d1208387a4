// Lanes of one warp exchange through shared memory as if they ran in lockstep.
// launch: 2 64 0
// report: shared memory race | shared memory read before written
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    SHARED(float, row, 64);
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x), base = warp_id() * 32;
    row[threadIdx.x] = input[i % count];
#if !FAULT
    sync_warp();
#endif
    output[i] = row[base + (lane_id() + 1) % 32];
}
