// A reduction by hand whose scratch is written again before everybody has read the result.
// launch: 2 128 0
// report: shared memory race
#include "device.cuh"

KERNEL(128, 1) fault(const float* input, float* output, int count) {
    SHARED(float, scratch, 4);
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    float total = 0.0f;
    for (int round = 0; round < 2; ++round) {
        const float sum = warp_sum(input[(i + round) % count]);
        if (lane_id() == 0) scratch[warp_id()] = sum;
        sync_block();
        for (int w = 0; w < 4; ++w) total += scratch[w];
#if !FAULT
        sync_block();
#endif
    }
    output[i] = total;
}
