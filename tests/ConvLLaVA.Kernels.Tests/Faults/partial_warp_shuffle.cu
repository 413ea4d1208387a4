// A shuffle that half of the warp does not reach.
// launch: 2 32 0
// report: divergent warp
#include "device.cuh"

KERNEL(32, 1) fault(const float* input, float* output, int count) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    float v = i < count ? input[i] : 0.0f;
    if (!FAULT || lane_id() < 16) v += shfl_xor(v, 8);
    output[i] = v;
}
