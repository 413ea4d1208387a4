// A buffer is filled again while slower warps still read it.
// launch: 4 128 0
// report: shared memory race
#include "device.cuh"

KERNEL(128, 1) fault(const float* input, float* output, int count) {
    SHARED(float, buffer, 128);
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    float sum = 0.0f;
    for (int round = 0; round < 3; ++round) {
        buffer[threadIdx.x] = input[(i + round * 32) % count];
        sync_block();
        sum += buffer[(threadIdx.x + 64) % 128];
#if !FAULT
        sync_block();
#endif
    }
    output[i] = sum;
}
