// Each thread waits for its own copies only: reading a neighbour's needs a barrier too.
// launch: 4 64 0
// report: asynchronous copy not waited for | shared memory race | shared memory read before written
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    SHARED(float, tile, 64 * 4);
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    cp_async16(tile + threadIdx.x * 4, input + i / 4 * 4, i < count);
    cp_async_commit();
    cp_async_wait<0>();
#if !FAULT
    sync_block();
#endif
    output[i] = tile[(threadIdx.x + 33) % 64 * 4];
}
