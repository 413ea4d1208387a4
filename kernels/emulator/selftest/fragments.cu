// mma and ldmatrix on raw registers, so that each element can be held against the documented fragments.
#include "device.cuh"

// a[32, 4], b[32, 2], c[32, 4]: registers by lane. type 0: f16, 1: bf16.
KERNEL(32, 1) fragment_mma(const unsigned* a, const unsigned* b, float* c, int type) {
    float acc[4];
    unsigned ra[4], rb[2];
    for (int i = 0; i < 4; ++i) acc[i] = c[threadIdx.x * 4 + i];
    for (int i = 0; i < 4; ++i) ra[i] = a[threadIdx.x * 4 + i];
    for (int i = 0; i < 2; ++i) rb[i] = b[threadIdx.x * 2 + i];
    if (type == 0) mma_m16n8k16<f16>(acc, ra, rb);
    else mma_m16n8k16<bf16>(acc, ra, rb);
    for (int i = 0; i < 4; ++i) c[threadIdx.x * 4 + i] = acc[i];
}

// matrices[4, 8, 8]: row i of matrix j is put at a place of its own (rows[j * 8 + i]); out[32, 4].
KERNEL(32, 1) fragment_ldmatrix(const unsigned* matrices, const int* rows, unsigned* out, int count, int transposed) {
    SHARED(f16, tile, 64 * 8);
    const int row = rows[threadIdx.x];
    for (int k = 0; k < 8; ++k) {
        const unsigned word = matrices[threadIdx.x * 4 + k / 2];
        tile[row * 8 + k] = f16{static_cast<unsigned short>(k % 2 ? word >> 16 : word & 0xffffu)};
    }
    sync_warp();
    unsigned r[4] = {0, 0, 0, 0};
    const int given = count == 2 ? rows[threadIdx.x % 16] : row;
    if (count == 2 && transposed == 0) ldmatrix_x2(r, tile + given * 8);
    else if (count == 2) ldmatrix_x2_trans(r, tile + given * 8);
    else if (transposed == 0) ldmatrix_x4(r, tile + given * 8);
    else ldmatrix_x4_trans(r, tile + given * 8);
    for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = r[i];
}

// What the block and warp reductions, shuffles and votes answer; out[threads, 12].
KERNEL(256, 1) vocabulary(const float* x, float* out, int* total, int n) {
    SHARED(float, scratch, 33);
    SHARED(int, counter, 1);
    const int i = int(threadIdx.x);
    const float v = x[i];
    if (i == 0) counter[0] = 0;
    float* const o = out + i * 12;
    o[0] = block_sum(v, scratch);
    o[1] = block_max(v, scratch);
    o[2] = shfl_xor(v, 5);
    o[3] = shfl_down(v, 3);
    o[4] = shfl_up(v, 3);
    o[5] = float(shfl_idx(i, 9));
    o[6] = float(ballot(i % 3 == 0) & 0xffffu);
    o[7] = any(i % 32 == 4) && !all(i % 32 == 4) && all(v < 1e9f) ? 1.0f : 0.0f;
    o[8] = warp_sum(v);
    o[9] = warp_max(v);
    sync_block();
    atomic_add(&counter[0], i);
    atomic_add(total, 1);
    sync_block();
    o[10] = float(counter[0]);
    o[11] = fast_exp2(v) * fast_rcp(float(n)) * float(gridDim.x) + float(blockIdx.x + blockDim.x);
}

// So many sync_warps that the race shadow runs out of time stamps and numbers anew; what was written before stays written, and
// what is exchanged stays ordered. With `fault` the last exchange lacks its sync_warp.
KERNEL(64, 1) many_syncs(float* out, int n, int fault) {
    SHARED(int, row, 64);
    SHARED(int, first, 64);
    first[threadIdx.x] = int(threadIdx.x);
    row[threadIdx.x] = 0;
    sync_block();
    int sum = 0;
    const int base = warp_id() * 32, next = base + (lane_id() + 1) % 32;
    for (int i = 0; i < n; ++i) {
        row[threadIdx.x] = i;
        if (!(fault != 0 && i == n - 1)) sync_warp();
        sum += row[next] - i;
        sync_warp();
        if (i % 4096 == 0) sync_block();
    }
    out[threadIdx.x] = float(sum + first[63 - threadIdx.x]);
}
