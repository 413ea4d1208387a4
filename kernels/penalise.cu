#include "device.cuh"

// penalised = logits, with those of tokens generated before lowered: a positive one divided and a negative one multiplied by the
// repetition penalty, then the presence penalty and `count` times the frequency penalty taken off. In the CPU sampler's order of
// operations and roundings, so the results are its bits. A copy, because log-probabilities are those of the unchanged logits.
//
// Launch: grid (rows), block 512 threads, no dynamic shared memory. penalties is repetition, presence, frequency; a row without counted
// tokens is copied. Bound by memory: 8 * rows * vocabulary bytes, within the L2 cache (128 KB a row each way at 32000 tokens).

KERNEL(1024, 1) penalise(const float* logits /*[rows, vocabulary]*/, const float* penalties /*[3, rows]*/, const int* counted /*[rows]*/,
                         const int* counted_ids /*[rows, max_counted], different within a row*/, const int* counts /*as counted_ids*/,
                         int max_counted, float* penalised /*[rows, vocabulary]*/, int rows, int vocabulary) {
    const int row = blockIdx.x;
    const float repetition = penalties[row], presence = penalties[rows + row], frequency = penalties[2 * rows + row];
    const float* from = logits + (long long)row * vocabulary;
    float* to = penalised + (long long)row * vocabulary;
    pdl_wait();
#pragma unroll 8
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) to[i] = from[i];
    sync_block();
    for (int j = threadIdx.x; j < counted[row]; j += blockDim.x) {
        const int id = counted_ids[(long long)row * max_counted + j];
        const float logit = from[id], scaled = logit > 0.0f ? logit / repetition : __fmul_rn(logit, repetition);
        to[id] = scaled - presence - __fmul_rn(frequency, float(counts[(long long)row * max_counted + j]));
    }
    pdl_launch();
}
