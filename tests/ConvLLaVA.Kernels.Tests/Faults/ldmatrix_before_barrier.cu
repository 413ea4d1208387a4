// Each warp loads its matrices from the tile that all warps filled.
// launch: 1 64 0
// report: shared memory race | shared memory read before written
#include "device.cuh"

KERNEL(64, 1) fault(const float* input, float* output, int count) {
    SHARED(f16, tile, 32 * 8);  // [32 rows, 8]
    for (int k = 0; k < 4; ++k) tile[threadIdx.x * 4 + k] = from_float<f16>(input[(threadIdx.x + k) % unsigned(count)]);
#if !FAULT
    sync_block();
#endif
    unsigned r[4];
    ldmatrix_x4(r, tile + lane_id() * 8);
    float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma_m16n8k16<f16>(c, r, r);
    output[threadIdx.x] = c[0] + c[3];
}
