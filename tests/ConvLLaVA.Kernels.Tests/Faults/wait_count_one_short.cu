// Two stages of asynchronous copies, of which the older must have arrived: at most one may be pending.
// launch: 4 64 2048
// report: asynchronous copy not waited for
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    DYNAMIC_SHARED(float, stages);  // [2, 64 * 4]
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    float sum = 0.0f;
    cp_async16(stages + threadIdx.x * 4, input + i / 4 * 4, true);
    cp_async_commit();
    for (int step = 0; step < 4; ++step) {
        if (step + 1 < 4) cp_async16(stages + (step + 1) % 2 * 256 + threadIdx.x * 4, input + (i + step * 64) % count / 4 * 4, true);
        cp_async_commit();
        cp_async_wait<1 + FAULT>();
        sync_block();
        sum += stages[step % 2 * 256 + int(threadIdx.x + 1) % 64 * 4];
        sync_block();
    }
    output[i] = sum;
}
