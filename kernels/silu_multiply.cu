#include "device.cuh"

// y = silu(gate) * up, with gate and up side by side in a row: the middle of the gated MLP between its two products.
//
// Launch: grid (ceil(intermediate / (256 * pack)), rows) with pack = 16 / sizeof(storage) elements, or 1 where intermediate is not a
// multiple of it; block 256; no dynamic shared memory. A thread reads one pack of each half and writes one. Bound by memory:
// 3 * rows * intermediate * sizeof(storage) bytes, about 5 flops and two special-function operations an element: 640 rows of 11008
// in 16 bits are 42 MB, mostly still in the L2 cache from the product that wrote them.

DEVICE float silu(float x) {
    // In 16-bit storage the approximations' 2^-22 is far below the rounding that follows.
    if constexpr (sizeof(storage) == 4) return x / (1.0f + expf(-x));
    return x * fast_rcp(1.0f + fast_exp2(x * -1.44269504f));
}

KERNEL(256, 4) silu_multiply(const storage* gate_up /*[rows, 2 * intermediate]*/, storage* y /*[rows, intermediate]*/, int rows,
                             int intermediate) {
    pdl_wait();
    constexpr int PACK = Pack<storage>::size;
    const int thread = blockIdx.x * blockDim.x + threadIdx.x;
    const storage* gate = gate_up + (long long)blockIdx.y * 2 * intermediate;
    const storage* up = gate + intermediate;
    storage* to = y + (long long)blockIdx.y * intermediate;
    if (intermediate % PACK == 0) {
        const int i = thread * PACK;
        if (i < intermediate) {
            const Pack<storage> g = load16(gate + i), u = load16(up + i);
            Pack<storage> result;
#pragma unroll
            for (int e = 0; e < PACK; e += 2) result.set2(e, silu(g.get(e)) * u.get(e), silu(g.get(e + 1)) * u.get(e + 1));
            store16(to + i, result);
        }
    } else if (thread < intermediate) {
        to[thread] = from_float<storage>(silu(to_float(gate[thread])) * to_float(up[thread]));
    }
    pdl_launch();
}
