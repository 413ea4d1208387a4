// 16 bytes from an address that is a multiple of 4.
// launch: 1 32 0
// report: unaligned global access
#include "device.cuh"

KERNEL(32, 1) fault(const float* input, float* output, int count) {
    const int i = int(threadIdx.x) % (count / 4 - 1) * 4;
    const Pack<float> v = load16(input + i + FAULT);
    output[threadIdx.x] = v.get(0) + v.get(3);
}
