// LayerNorm over the last dimension.
//
// What: y = (x - mean) / sqrt(variance + epsilon) * weight + bias for each row, biased variance, in fp32: mean first, then the
// centred squares (two passes over registers), as PyTorch's definition has it. y may be x.
// Layout: x, y [rows, columns] in storage; weight, bias float [columns].
// Launch: block 256 always. Two forms, chosen by `columns` alone (V = Pack<storage>::size):
//   columns % V == 0 and columns <= 128 * V: a warp a row, grid = ceil(rows / 8); otherwise a block a row, grid = rows.
// No dynamic shared memory.
// Tiling: each lane holds up to 4 packs of 16 bytes of its row in registers, so that x is read once; a block holds 4096 columns and
// re-reads (from L1) what is wider. Rows that are not 16-byte packs are walked element by element, three times.
// Bound: memory. Bytes: 2 * sizeof(storage) * rows * columns. Flops: 8 an element.
#include "layer_norm.cuh"

KERNEL(256, 3) layer_norm(const storage* x /*[rows, columns]*/, const float* weight /*[columns]*/, const float* bias /*[columns]*/,
                          storage* y /*[rows, columns]*/, int rows, int columns, float epsilon) {
    SHARED(float, scratch, 33);
    pdl_wait();
    pdl_launch();
    if (columns % SIZE != 0) {
        const long long at = (long long)blockIdx.x * columns;
        normalise_row_by_element(x + at, weight, bias, y + at, columns, epsilon, scratch);
    } else if (columns <= WARP_SIZE * WARP_PACKS * SIZE) {
        const long long row = (long long)blockIdx.x * (THREADS / WARP_SIZE) + warp_id();
        const long long at = row < rows ? row * columns : 0;
        normalise_row<false>(x + at, weight, bias, y + at, columns, epsilon, lane_id(), WARP_SIZE, row < rows, scratch);
    } else {
        const long long at = (long long)blockIdx.x * columns;
        normalise_row<true>(x + at, weight, bias, y + at, columns, epsilon, int(threadIdx.x), THREADS, true, scratch);
    }
}
