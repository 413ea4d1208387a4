// A barrier that only one warp reaches.
// launch: 1 64 0
// report: divergent barrier
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    SHARED(float, row, 64);
    row[threadIdx.x] = input[threadIdx.x] * float(count);
    if (!FAULT || warp_id() == 0) sync_block();
    output[threadIdx.x] = row[threadIdx.x];
}
