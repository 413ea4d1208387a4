// RMSNorm ahead of a product of few rows: each block normalises all of them into its shared memory, since every warp reads them all.
//
// Nothing of it is worth a launch of its own: the rows are a few hundred KiB at most and lie in the L2 cache. Rounded to storage as
// rms_norm.cu rounds, so that either way gives the same product.
#pragma once
#include "device.cuh"

#ifndef ROWS
#define ROWS 1
#endif

constexpr int THREADS = 256;
constexpr int PACK = Pack<storage>::size;
constexpr int SCRATCH = 8;                    // floats: one sum a warp

// RMSNorm of all rows into shared memory. The order of the sums depends on THREADS only.
DEVICE void normalise(const storage* x, const float* norm_weight, SharedPtr<storage> normalised, SharedPtr<float> scratch, int in_features,
                      float epsilon) {
    const int first = int(threadIdx.x);
#pragma unroll 1
    for (int r = 0; r < ROWS; ++r) {
        const storage* row = x + (long long)r * in_features;
        float squares = 0.0f;
        if (in_features % PACK == 0) {
#pragma unroll 2
            for (int c = first * PACK; c < in_features; c += THREADS * PACK) {
                const Pack<storage> v = load16(row + c);
#pragma unroll
                for (int i = 0; i < PACK; ++i) squares += v.get(i) * v.get(i);
            }
        } else {
#pragma unroll 1
            for (int c = first; c < in_features; c += THREADS) squares += to_float(row[c]) * to_float(row[c]);
        }
        squares = warp_sum(squares);
        sync_block();                          // the scratch of the row before is read
        if (lane_id() == 0) scratch[warp_id()] = squares;
        sync_block();
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < THREADS / WARP_SIZE; ++w) sum += scratch[w];
        const float scale = rsqrtf(sum / float(in_features) + epsilon);
        if (in_features % PACK == 0) {
#pragma unroll 2
            for (int c = first * PACK; c < in_features; c += THREADS * PACK) {
                Pack<storage> v = load16(row + c);
#pragma unroll
                for (int i = 0; i < PACK; i += 4) {
                    const Pack<float> w = load16(norm_weight + c + i);
                    v.set2(i, v.get(i) * scale * w.get(0), v.get(i + 1) * scale * w.get(1));
                    v.set2(i + 2, v.get(i + 2) * scale * w.get(2), v.get(i + 3) * scale * w.get(3));
                }
                store16(normalised + r * in_features + c, v);
            }
        } else {
#pragma unroll 1
            for (int c = first; c < in_features; c += THREADS)
                normalised[r * in_features + c] = from_float<storage>(to_float(row[c]) * scale * norm_weight[c]);
        }
    }
    sync_block();
}
