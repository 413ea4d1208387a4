// Rows of a quantised matrix as `storage`: what a matrix product of many rows reads (prefill), where weights.cuh serves few.
//
// What: y[r, c] = weight[first_row + r, c] * factor[first_row + r]; factor (a layer scale) may be null.
// Layout: codes and scales of the whole matrix (weights.cuh; WEIGHTS 1 .. 6), y [rows, in_features] in storage, factor float [out_features].
// Launch: block 256; any grid: threads walk on by it. No dynamic shared memory.
// Tiling: a thread takes 16 bytes of codes and writes the 16 or 32 weights. Its stores lie 32 to 128 bytes beside its neighbour's: L2 puts
// the sectors together. Rows that are not packs of 16 bytes are taken weight by weight.
// Bound: memory. Bytes: codes, scales and sizeof(storage) * rows * in_features. Flops: 2 a weight.
#include "weights.cuh"

constexpr int PACK = Pack<storage>::size;

KERNEL(256, 4) dequantise(const code* codes /*[out_features, in_features]*/, const scale_type* scales, const float* factor /*or null*/,
                          storage* y /*[rows, in_features]*/, int first_row, int rows, int in_features) {
#if WEIGHTS == 6
    SHARED(float, table, 16);
    fill_table(table);
    sync_block();
#else
    const SharedPtr<float> table = {};
#endif
    pdl_wait();
    pdl_launch();
    const int first = int(blockIdx.x * blockDim.x + threadIdx.x), threads = int(gridDim.x * blockDim.x);
    if (is_packed(in_features)) {
        const int packs = in_features / SIZE;
        for (long long i = first; i < (long long)rows * packs; i += threads) {
            const int r = int(i / packs), column = int(i % packs) * SIZE, row = first_row + r;
            const Pack<code> p = load16_stream(codes + ((long long)row * in_features + column) / PER_CODE);
            const float scale = to_float(scales[scale_at(row, column, in_features)]), by = row_factor(scales, row) * (factor ? factor[row] : 1.0f);
#pragma unroll
            for (int j = 0; j < CHUNKS; ++j) {
                float values[CHUNK];
                decode(p.words + j * (4 / CHUNKS), scale, table, values);
#pragma unroll
                for (int c = 0; c < CHUNK; c += PACK) {
                    Pack<storage> out;
#pragma unroll
                    for (int k = 0; k < PACK; k += 2) out.set2(k, values[c + k] * by, values[c + k + 1] * by);
                    store16(y + (long long)r * in_features + column + j * CHUNK + c, out);
                }
            }
        }
    } else {
        for (long long i = first; i < (long long)rows * in_features; i += threads) {
            const int r = int(i / in_features), row = first_row + r;
            const float value = weight_of(codes, scales, row, int(i % in_features), in_features, table);
            y[i] = from_float<storage>(value * row_factor(scales, row) * (factor ? factor[row] : 1.0f));
        }
    }
}
