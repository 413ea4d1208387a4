// RMSNorm over the last dimension, of all rows or of some of them.
//
// What: y = x / sqrt(mean(x^2) + epsilon) * weight for each row, in fp32, rounded to storage once. rms_norm takes rows 0 .. rows - 1;
// gather_rms_norm takes row row_numbers[r] of x for row r of y (the rows whose logits are wanted). y may be x in rms_norm.
// Layout: x, y [rows, columns] in storage; weight float [columns].
// Launch: block 256, grid = rows. No dynamic shared memory.
// Tiling: a block a row: at decode there are as few rows as sequences, so what counts is one row's latency; 256 threads hold 2 packs of
// 16 bytes each in registers (4096 columns of 16 bits; wider rows are re-read from L1), all loads are under way before the only
// reduction. Rows that are not 16-byte packs are walked element by element.
// Bound: memory in prefill, latency in decode. Bytes: 2 * sizeof(storage) * rows * columns. Flops: 4 an element.
#include "device.cuh"

constexpr int SIZE = Pack<storage>::size;
constexpr int PACKS = 16 / SIZE;
constexpr int THREADS = 256;

DEVICE void normalise_row(const storage* x, const float* weight, storage* y, int columns, float epsilon, SharedPtr<float> scratch) {
    const int first = int(threadIdx.x);
    float squares = 0.0f;
    if (columns % SIZE != 0) {
        for (int c = first; c < columns; c += THREADS) squares += to_float(x[c]) * to_float(x[c]);
        const float scale = rsqrtf(block_sum(squares, scratch) / float(columns) + epsilon);
        for (int c = first; c < columns; c += THREADS) y[c] = from_float<storage>(to_float(x[c]) * scale * weight[c]);
        return;
    }
    const int packs = columns / SIZE;
    Pack<storage> v[PACKS];
#pragma unroll
    for (int p = 0; p < PACKS; ++p) v[p] = first + p * THREADS < packs ? load16(x + (first + p * THREADS) * SIZE) : Pack<storage>{};
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
#pragma unroll
        for (int i = 0; i < SIZE; ++i) squares += v[p].get(i) * v[p].get(i);
    }
#pragma unroll 1
    for (int pack = first + PACKS * THREADS; pack < packs; pack += THREADS) {
        const Pack<storage> u = load16(x + pack * SIZE);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) squares += u.get(i) * u.get(i);
    }
    const float scale = rsqrtf(block_sum(squares, scratch) / float(columns) + epsilon);

    auto write = [&](int pack, Pack<storage> u) {
        const Pack<float> w0 = load16(weight + pack * SIZE), w1 = load16(weight + pack * SIZE + SIZE - 4);
#pragma unroll
        for (int i = 0; i < SIZE; i += 2) {
            const Pack<float>& w = i < 4 ? w0 : w1;
            u.set2(i, u.get(i) * scale * w.get(i % 4), u.get(i + 1) * scale * w.get(i % 4 + 1));
        }
        store16(y + pack * SIZE, u);
    };
#pragma unroll
    for (int p = 0; p < PACKS; ++p)
        if (first + p * THREADS < packs) write(first + p * THREADS, v[p]);
#pragma unroll 1
    for (int pack = first + PACKS * THREADS; pack < packs; pack += THREADS) write(pack, load16(x + pack * SIZE));
}

KERNEL(256, 4) rms_norm(const storage* x /*[rows, columns]*/, const float* weight /*[columns]*/, storage* y /*[rows, columns]*/, int rows,
                        int columns, float epsilon) {
    SHARED(float, scratch, 33);
    pdl_wait();
    pdl_launch();
    const long long row = blockIdx.x;
    if (row >= rows) return;
    normalise_row(x + row * columns, weight, y + row * columns, columns, epsilon, scratch);
}

KERNEL(256, 4) gather_rms_norm(const storage* x /*[tokens, columns]*/, const int* row_numbers /*[rows]*/, const float* weight /*[columns]*/,
                               storage* y /*[rows, columns]*/, int rows, int columns, float epsilon) {
    SHARED(float, scratch, 33);
    pdl_wait();
    pdl_launch();
    const long long row = blockIdx.x;
    if (row >= rows) return;
    normalise_row(x + (long long)row_numbers[row] * columns, weight, y + row * columns, columns, epsilon, scratch);
}
