// Bias and activation in place, after a GEMM whose epilogue cannot do them (cuBLASLt's GELU is the tanh form; the models use erf).
//
// What: x[r, c] = act(x[r, c] + bias[c]); ACTIVATION 0 is the identity, 1 is GELU(v) = v / 2 * (1 + erf(v / sqrt 2)).
// Layout: x [rows, columns] in storage, bias float or null.
// Launch: block 256; grid.x = ceil(columns / (256 * Pack<storage>::size)) where columns is a multiple of Pack<storage>::size,
// otherwise ceil(columns / 256); grid.y = any number of row groups from 1 to 65535, best min(rows, ceil(16 * SMs / grid.x)).
// No dynamic shared memory.
// Tiling: a thread keeps its 16 bytes' columns and walks down the rows, so that the bias is read once and no index is divided.
// Bound: memory and issue slots alike with GELU. The SASS has 25 instructions an element for it: 7 FFMA, 4 FMUL, 3 FADD, 1 MUFU.EX2 and 10
// that compare and select. An H200 moves about 20 bytes a clock and multiprocessor, 5 elements of 16 bits, and their 125 instructions
// take as many of the 128 slots. Bytes: 2 * sizeof(storage) * rows * columns. Flops: 22 an element with GELU: an FFMA counts as two,
// FMUL, FADD and MUFU as one each, comparing and selecting as none.
#include "device.cuh"

#ifndef ACTIVATION
#define ACTIVATION 1
#endif

DEVICE float activate(float v) {
    if constexpr (ACTIVATION == 1) return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
    return v;
}

KERNEL(256, 4) bias_activation(storage* x /*[rows, columns]*/, const float* bias /*[columns] or null*/, int rows, int columns) {
    constexpr int size = Pack<storage>::size;
    const int thread = int(blockIdx.x * blockDim.x + threadIdx.x);
    pdl_wait();
    pdl_launch();
    if (columns % size == 0) {
        const int column = thread * size;
        if (column >= columns) return;
        float b[size];
#pragma unroll
        for (int i = 0; i < size; ++i) b[i] = bias ? bias[column + i] : 0.0f;
        for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
            storage* p = x + row * columns + column;
            Pack<storage> v = load16(p);
#pragma unroll
            for (int i = 0; i < size; i += 2) v.set2(i, activate(v.get(i) + b[i]), activate(v.get(i + 1) + b[i + 1]));
            store16(p, v);
        }
    } else {
        if (thread >= columns) return;
        const float b = bias ? bias[thread] : 0.0f;
        for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
            storage* p = x + row * columns + thread;
            *p = from_float<storage>(activate(to_float(*p) + b));
        }
    }
}
