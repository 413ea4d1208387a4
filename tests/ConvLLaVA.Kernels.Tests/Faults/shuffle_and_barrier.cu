// Some lanes of a warp wait in the block's barrier, the others in a vote.
// launch: 1 64 0
// report: divergent warp
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    bool p = int(threadIdx.x) < count && input[threadIdx.x] > 0.0f;
#if FAULT
    if (lane_id() == 7) sync_block();
    else p = any(p);
#else
    sync_block();
    p = any(p);
#endif
    output[threadIdx.x] = p ? 1.0f : 0.0f;
}
