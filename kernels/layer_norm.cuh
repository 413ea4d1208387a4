// LayerNorm of one row, for layer_norm.cu and norm_gather.cu: fp32, two passes (the mean, then the centred squares), biased variance.
//
// A warp's lane holds up to 4 packs of 16 bytes of its row in registers, so that the row is read once; a block holds 4096 columns and
// reads what is wider again, from L1. Rows that are not packs are walked element by element, three times.
#pragma once
#include "device.cuh"

constexpr int SIZE = Pack<storage>::size;
constexpr int WARP_PACKS = 4;
constexpr int THREADS = 256;

template <bool whole_block> DEVICE float row_sum(float x, SharedPtr<float> scratch) {
    if constexpr (whole_block) return block_sum(x, scratch);
    else return warp_sum(x);
}

// One row by `stride` threads, this one being number `first`. An absent row (valid == false) only takes part in the sums.
template <bool whole_block>
DEVICE void normalise_row(const storage* x, const float* weight, const float* bias, storage* y, int columns, float epsilon, int first,
                          int stride, bool valid, SharedPtr<float> scratch) {
    constexpr int PACKS = whole_block ? 16 / SIZE : WARP_PACKS;   // packs of a thread that stay in registers
    const int width = valid ? columns : 0;
    const int packs = width / SIZE;
    Pack<storage> v[PACKS];
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
        const int pack = first + p * stride;
        v[p] = pack < packs ? load16(x + pack * SIZE) : Pack<storage>{};
#pragma unroll
        for (int i = 0; i < SIZE; ++i) sum += v[p].get(i);
    }
#pragma unroll 1
    for (int pack = first + PACKS * stride; pack < packs; pack += stride) {
        const Pack<storage> u = load16(x + pack * SIZE);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) sum += u.get(i);
    }
    const float mean = row_sum<whole_block>(sum, scratch) / float(columns);

    float squares = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
        if (first + p * stride >= packs) continue;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) squares += (v[p].get(i) - mean) * (v[p].get(i) - mean);
    }
#pragma unroll 1
    for (int pack = first + PACKS * stride; pack < packs; pack += stride) {
        const Pack<storage> u = load16(x + pack * SIZE);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) squares += (u.get(i) - mean) * (u.get(i) - mean);
    }
    const float scale = rsqrtf(row_sum<whole_block>(squares, scratch) / float(columns) + epsilon);

    auto write = [&](int pack, Pack<storage> u) {
        const Pack<float> w0 = load16(weight + pack * SIZE), b0 = load16(bias + pack * SIZE);
        const Pack<float> w1 = load16(weight + pack * SIZE + SIZE - 4), b1 = load16(bias + pack * SIZE + SIZE - 4);
#pragma unroll
        for (int i = 0; i < SIZE; i += 2) {
            const Pack<float>&w = i < 4 ? w0 : w1, &b = i < 4 ? b0 : b1;
            u.set2(i, (u.get(i) - mean) * scale * w.get(i % 4) + b.get(i % 4),
                   (u.get(i + 1) - mean) * scale * w.get(i % 4 + 1) + b.get(i % 4 + 1));
        }
        store16(y + pack * SIZE, u);
    };
#pragma unroll
    for (int p = 0; p < PACKS; ++p)
        if (first + p * stride < packs) write(first + p * stride, v[p]);
#pragma unroll 1
    for (int pack = first + PACKS * stride; pack < packs; pack += stride) write(pack, load16(x + pack * SIZE));
}

DEVICE void normalise_row_by_element(const storage* x, const float* weight, const float* bias, storage* y, int columns, float epsilon,
                                     SharedPtr<float> scratch) {
    float sum = 0.0f, squares = 0.0f;
    for (int c = int(threadIdx.x); c < columns; c += THREADS) sum += to_float(x[c]);
    const float mean = block_sum(sum, scratch) / float(columns);
    for (int c = int(threadIdx.x); c < columns; c += THREADS) squares += (to_float(x[c]) - mean) * (to_float(x[c]) - mean);
    const float scale = rsqrtf(block_sum(squares, scratch) / float(columns) + epsilon);
    for (int c = int(threadIdx.x); c < columns; c += THREADS)
        y[c] = from_float<storage>((to_float(x[c]) - mean) * scale * weight[c] + bias[c]);
}
