#include "device.cuh"

// Log-probabilities under the model's own logits: of the token that was chosen and of the likeliest ones, equals by ascending id.
//
// Launch: grid (rows), block 512 threads (whole warps, at most 1024), no dynamic shared memory. wanted[row] is how many of the likeliest
// to tell, 0 for only the chosen one's, negative for nothing: what is not wanted is not written. wanted <= max_wanted <= vocabulary.
// Each of the likeliest is one more pass over the row, looking for the largest logit behind the last one; 128 KB out of the caches
// and two barriers each at 32000 tokens. Bound by latency; the exponentials, one a token, are the flops.

struct Best {
    float value;
    int id;
};

KERNEL(1024, 1) token_logprobs(const float* logits /*[rows, vocabulary]*/, const int* tokens /*[rows]*/, const int* wanted /*[rows]*/,
                               float* token_logprob /*[rows]*/, int* likeliest_ids /*[rows, max_wanted]*/,
                               float* likeliest_logprobs /*[rows, max_wanted]*/, int rows, int vocabulary, int max_wanted) {
    SHARED(float, scratch, 33);
    SHARED(float, values, WARP_SIZE);
    SHARED(int, ids, WARP_SIZE);
    const int row = blockIdx.x, count = wanted[row];
    const float* x = logits + (long long)row * vocabulary;
    pdl_wait();
    if (count >= 0) {
        float highest = -INFINITY, sum = 0;
#pragma unroll 8
        for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) highest = fmaxf(highest, x[i]);
        highest = block_max(highest, scratch);
#pragma unroll 4
        for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) sum += expf(x[i] - highest);
        const float log_sum = logf(block_sum(sum, scratch));
        const int token = tokens[row];
        if (threadIdx.x == 0 && token >= 0) token_logprob[row] = x[token] - highest - log_sum;

        Best last = {INFINITY, -1};
        for (int n = 0; n < count; ++n) {
            Best best = {-INFINITY, vocabulary};
            const auto take = [&](float value, int id) {
                if (value > best.value || (value == best.value && id < best.id)) best = {value, id};
            };
            const auto take_lanes = [&]() {
                for (int mask = WARP_SIZE / 2; mask > 0; mask /= 2) {
                    const float value = shfl_xor(best.value, mask);
                    take(value, shfl_xor(best.id, mask));
                }
            };
            for (int i = threadIdx.x; i < vocabulary; i += blockDim.x)
                if (x[i] < last.value || (x[i] == last.value && i > last.id)) take(x[i], i);
            take_lanes();
            if (lane_id() == 0) values[warp_id()] = best.value, ids[warp_id()] = best.id;
            sync_block();
            best = {-INFINITY, vocabulary};
            if (lane_id() * WARP_SIZE < int(blockDim.x)) best = {values[lane_id()], ids[lane_id()]};
            take_lanes();
            sync_block(); // values and ids are read: the next pass may write them
            if (threadIdx.x == 0) {
                likeliest_ids[(long long)row * max_wanted + n] = best.id;
                likeliest_logprobs[(long long)row * max_wanted + n] = best.value - highest - log_sum;
            }
            last = best;
        }
    }
    pdl_launch();
}
