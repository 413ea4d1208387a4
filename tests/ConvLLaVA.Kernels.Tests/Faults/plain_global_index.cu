// A plain load past the end of its allocation.
// launch: 2 64 0
// report: global memory out of bounds
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    output[i] = input[(i + FAULT) % (count + FAULT)];
}
