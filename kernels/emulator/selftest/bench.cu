// Costs of the runtime's steps. Loops are long enough that what surrounds them does not count.
#include "device.cuh"

KERNEL(1024, 1) bench_shuffle(float* out, int n) {
    float v = float(threadIdx.x);
    for (int i = 0; i < n; ++i) v = shfl_xor(v, 1) + 1.0f;
    out[blockIdx.x * blockDim.x + threadIdx.x] = v;
}
KERNEL(1024, 1) bench_warp_sum(float* out, int n) {
    float v = float(threadIdx.x);
    for (int i = 0; i < n; ++i) v = warp_sum(v) * 0.03f;
    out[blockIdx.x * blockDim.x + threadIdx.x] = v;
}
KERNEL(1024, 1) bench_barrier(float* out, int n) {
    for (int i = 0; i < n; ++i) sync_block();
    out[blockIdx.x * blockDim.x + threadIdx.x] = float(n);
}
KERNEL(1024, 1) bench_mma(float* out, int n) {
    float c[4] = {0, 0, 0, 0};
    unsigned a[4] = {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u}, b[2] = {0x3c003c00u, 0x3c003c00u};
    for (int i = 0; i < n; ++i) mma_m16n8k16<f16>(c, a, b);
    out[blockIdx.x * blockDim.x + threadIdx.x] = c[0] + c[1] + c[2] + c[3];
}
KERNEL(1024, 1) bench_ldmatrix(float* out, int n) {
    SHARED(f16, tile, 32 * 8 * 32);
    for (int k = 0; k < 8; ++k) tile[threadIdx.x * 8 + k] = from_float<f16>(1.0f);
    sync_block();
    unsigned r[4], s = 0;
    for (int i = 0; i < n; ++i) {
        ldmatrix_x4(r, tile + threadIdx.x * 8);
        s += r[0];
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = float(s);
}
KERNEL(1024, 1) bench_shared(float* out, int n) {
    SHARED(float, row, 1024);
    row[threadIdx.x] = 1.0f;
    sync_block();
    float s = 0.0f;
    const unsigned mask = blockDim.x - 1;
    for (int i = 0; i < n; ++i) s += row[(threadIdx.x + unsigned(i)) & mask];
    out[blockIdx.x * blockDim.x + threadIdx.x] = s;
}
KERNEL(1024, 1) bench_shared16(float* out, int n) {
    SHARED(float, row, 1024);
    row[threadIdx.x] = 1.0f;
    sync_block();
    float s = 0.0f;
    for (int i = 0; i < n; ++i) s += load16(row + (threadIdx.x + unsigned(i)) % 32 * 4).get(1);
    out[blockIdx.x * blockDim.x + threadIdx.x] = s;
}
KERNEL(1024, 1) bench_write(float* out, int n) {
    SHARED(float, row, 1024);
    for (int i = 0; i < n; ++i) row[threadIdx.x] = float(i);
    out[blockIdx.x * blockDim.x + threadIdx.x] = row[threadIdx.x];
}
KERNEL(1024, 1) bench_load16(float* out, int n) {
    float s = 0.0f;
    for (int i = 0; i < n; ++i) s += load16(out + (threadIdx.x + unsigned(i)) % 64 * 4).get(1);
    if (s == 12345.0f) out[0] = s;
}
KERNEL(1024, 1) bench_thread(float* out, int n) { out[blockIdx.x * blockDim.x + threadIdx.x] = float(n); }
