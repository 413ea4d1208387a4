// The last 16 bytes start inside the allocation and end outside.
// launch: 2 64 0
// report: global memory out of bounds
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i < count + 4 * FAULT) store16(output + i, load16(input + i));
}
