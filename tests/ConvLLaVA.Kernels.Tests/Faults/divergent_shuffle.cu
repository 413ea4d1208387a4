// The two halves of a warp are in different shuffles, which do not meet on a device.
// launch: 1 32 0
// report: divergent warp
#include "device.cuh"

KERNEL(32, 1) fault(const float* input, float* output, int count) {
    float v = int(threadIdx.x) < count ? input[threadIdx.x] : 0.0f;
#if FAULT
    if (lane_id() < 16) v = shfl_xor(v, 1);
    else v = shfl_xor(v, 2);
#else
    const float one = shfl_xor(v, 1), two = shfl_xor(v, 2);
    v = lane_id() < 16 ? one : two;
#endif
    output[threadIdx.x] = v;
}
