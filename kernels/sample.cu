#include "device.cuh"

// Chooses one token a row from float logits: the likeliest, or one drawn after temperature, top-k, top-p and min-p, in this order and
// with Hugging Face's meaning of each. Penalties come before it (penalise.cu), log-probabilities after it (token_logprobs.cu).
//
// Launch: grid (rows), block 512 threads (32 … 1024, whole warps; the result does not depend on it), static shared memory 20.8 KB.
// settings is temperature, top_p, min_p; randomness the seed and how many numbers were drawn with it before. Temperature 0 takes the
// largest logit, the lowest id among equals, and draws nothing. A row whose largest logit is no number or not finite answers -1.
// `weights` is scratch memory; it is touched only where more tokens stay in play than the block has threads.
//
// What is drawn is defined in integers, so that it does not depend on the order of any sum and a host can compute the same token:
//   weight = floor(2^30 e^((logit - largest) / temperature)), as Rule::weight computes it, 0 below the top-k-th largest logit
//   all    = sum of weights. Order: by id; where top-p < 1 or min-p > 0: by weight, the higher id first among equals
//   top-p (LEAST_TOP_P or more) drops the first while their sum is at most floor((1 - top_p) all), min-p weights < floor(2^30 min_p)
//   the token drawn is the first whose sum exceeds dropped + floor(uniform * (all - dropped))
// The uniform number is that of the CPU sampler, which has the same definition: both choose the same token.
//
// One block a row: 128 KB of logits out of the L2 cache and a handful of passes over them, bound by latency, not bandwidth. Up to
// threads / 4 for top-k (Hugging Face's 50 is the default) a short list is gathered, and everything else is a few barriers on it;
// otherwise thresholds are found bit by bit, 31 passes each. Bytes: 4 * vocabulary a pass; no flops to speak of.

using u64 = unsigned long long;

constexpr int MOST_THREADS = 1024;
constexpr unsigned ONE = 1u << 30; // the weight of the likeliest token
constexpr float LEAST_TOP_P = 1.2e-7f; // keeps 1 - top_p below 1, which would drop everything; the likeliest token always has more

DEVICE u64 shfl64(u64 v, int lane) { return u64(shfl_idx(unsigned(v >> 32), lane)) << 32 | shfl_idx(unsigned(v), lane); }

// Inclusive sums over the warp.
DEVICE u64 warp_scan(u64 v) {
#pragma unroll
    for (int n = 1; n < WARP_SIZE; n *= 2) {
        const u64 lower = u64(shfl_up(unsigned(v >> 32), n)) << 32 | shfl_up(unsigned(v), n);
        if (lane_id() >= n) v += lower;
    }
    return v;
}

// Inclusive sums over the block; scratch [33] then holds the whole sum at 32. A barrier must come before the next use of scratch.
DEVICE u64 block_scan(u64 v, SharedPtr<u64> scratch) {
    v = warp_scan(v);
    if (lane_id() == WARP_SIZE - 1) scratch[warp_id()] = v;
    sync_block();
    if (warp_id() == 0) {
        const u64 own = lane_id() * WARP_SIZE < int(blockDim.x) ? u64(scratch[lane_id()]) : 0, upto = warp_scan(own);
        sync_warp();
        scratch[lane_id()] = upto - own;
        if (lane_id() == WARP_SIZE - 1) scratch[32] = upto;
    }
    sync_block();
    return v + scratch[warp_id()];
}

// The sum of value(i) over i < n, the same in every thread.
template <class Value> DEVICE u64 total(int n, SharedPtr<u64> scratch, Value value) {
    u64 mine = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) mine += value(i);
    block_scan(mine, scratch);
    const u64 sum = scratch[32];
    sync_block();
    return sum;
}

// The largest c of bit + 1 bits that holds, where everything below one that holds also does and 0 always does.
template <class Holds> DEVICE unsigned largest(int bit, Holds holds) {
    unsigned c = 0;
    for (; bit >= 0; --bit)
        if (holds(c | 1u << bit)) c |= 1u << bit;
    return c;
}

// The i at which the sum of value(0 … i) first exceeds `target`, which is below the whole sum. Every warp adds up a run of its own;
// the one whose run holds the target goes through it again.
template <class Value> DEVICE int pick(int n, u64 target, SharedPtr<u64> scratch, SharedPtr<int> answer, Value value) {
    const int threads = blockDim.x, lane = lane_id(), run = (n + threads - 1) / threads * WARP_SIZE;
    const int begin = warp_id() * run, end = min(n, begin + run);
    u64 mine = 0;
    for (int i = begin + lane; i < end; i += WARP_SIZE) mine += value(i);
    const u64 upto = shfl64(block_scan(mine, scratch), WARP_SIZE - 1);
    u64 passed = upto - shfl64(warp_scan(mine), WARP_SIZE - 1);
    if (passed <= target && target < upto) { // one warp
        for (int i = begin + lane; passed <= target; i += WARP_SIZE) {
            const u64 v = i < end ? value(i) : 0, sum = passed + warp_scan(v);
            if (sum > target && sum - v <= target) answer[0] = i;
            passed = shfl64(sum, WARP_SIZE - 1);
        }
    }
    sync_block();
    return answer[0];
}

// Floats as unsigned numbers in the same order.
DEVICE unsigned ordered(float x) {
    const unsigned bits = __float_as_uint(x + 0.0f); // no negative zero
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The id of the largest logit, the lowest among equals; NaN counts as infinity.
DEVICE int likeliest(const float* x, int n, SharedPtr<u64> scratch) {
    const auto warp_largest = [](u64 v) {
        for (int mask = WARP_SIZE / 2; mask > 0; mask /= 2) v = max(v, shfl64(v, lane_id() ^ mask));
        return v;
    };
    u64 best = 0;
#pragma unroll 8
    for (int i = threadIdx.x; i < n; i += blockDim.x) best = max(best, u64(ordered(x[i] == x[i] ? x[i] : INFINITY)) << 32 | unsigned(~i));
    best = warp_largest(best);
    if (lane_id() == 0) scratch[warp_id()] = best;
    sync_block();
    best = warp_largest(lane_id() * WARP_SIZE < int(blockDim.x) ? u64(scratch[lane_id()]) : 0);
    sync_block();
    return ~int(unsigned(best));
}

// How one row is drawn.
struct Rule {
    float highest, inverse_temperature, top_p, min_p;
    int top_k;
    double uniform; // in [0, 1)

    DEVICE bool by_weight() const { return top_p < 1.0f || min_p > 0.0f; }
    DEVICE u64 top_p_limit(u64 all) const { return u64(double(1.0f - fmaxf(top_p, LEAST_TOP_P)) * double(all)); }
    DEVICE unsigned min_p_limit() const { return unsigned(min_p * float(ONE)); }
    DEVICE u64 target(u64 all, u64 dropped) const { return dropped + min(u64(uniform * double(all - dropped)), all - dropped - 1); }
    // Operations that every machine rounds alike, and none that a compiler may fuse.
    DEVICE unsigned weight(float logit) const {
        if (logit >= highest) return ONE;
        const float x = (logit - highest) * inverse_temperature, whole = floorf(x * 1.44269502f);
        if (!(whole >= -31.0f)) return 0;
        const float f = fmaf(x, 1.92596303e-8f, fmaf(x, 1.44269502f, -whole)); // log2(e) in two parts
        float p = 2.16129381e-4f;                                              // 2^f on [0, 1] within 7e-8
        p = fmaf(p, f, 1.24678388e-3f);
        p = fmaf(p, f, 9.67545249e-3f);
        p = fmaf(p, f, 5.54852784e-2f);
        p = fmaf(p, f, 2.40229309e-1f);
        p = fmaf(p, f, 6.93147063e-1f);
        p = fmaf(p, f, 1.0f);
        return unsigned(p * float(ONE)) >> -int(whole);
    }
};

// Number `draws` (from 0) of a seed's: SplitMix64 over a counter, uniform in [0, 1).
DEVICE double uniform(u64 seed, u64 draws) {
    const auto mix = [](u64 x) {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
        return x ^ (x >> 31);
    };
    return double(mix(mix(seed) + (draws + 1) * 0x9E3779B97F4A7C15) >> 11) * 0x1p-53;
}

// Draws among n <= blockDim.x listed tokens, a thread each: everybody's place in the order by comparing with all.
DEVICE int draw_listed(const Rule& rule, int n, SharedPtr<float> logits, SharedPtr<int> ids, SharedPtr<unsigned> weights,
                       SharedPtr<unsigned> sorted_weights, SharedPtr<int> sorted_ids, SharedPtr<u64> scratch, SharedPtr<int> answer) {
    const int i = threadIdx.x;
    if (i < n) weights[i] = rule.weight(logits[i]);
    sync_block();
    if (i < n) {
        const float logit = logits[i];
        const unsigned weight = weights[i];
        const int id = ids[i];
        int likelier = 0, lighter = 0, lower = 0;
        for (int j = 0; j < n; ++j) {
            likelier += logits[j] > logit;
            lighter += weights[j] < weight || (weights[j] == weight && ids[j] > id);
            lower += ids[j] < id;
        }
        const int place = rule.by_weight() ? lighter : lower;
        sorted_weights[place] = rule.top_k == 0 || likelier < rule.top_k ? weight : 0;
        sorted_ids[place] = id;
    }
    sync_block();
    const unsigned w = i < n ? unsigned(sorted_weights[i]) : 0;
    const u64 upto = block_scan(w, scratch), all = scratch[32];
    sync_block();
    const bool drop = upto <= rule.top_p_limit(all) || w < rule.min_p_limit();
    const u64 dropped = total(blockDim.x, scratch, [&](int) { return drop ? w : 0u; });
    const u64 target = rule.target(all, dropped);
    if (upto > target && upto - w <= target) answer[0] = sorted_ids[i];
    sync_block();
    return answer[0];
}

// Draws among all of n tokens, by halving intervals of weights. weights [n] is this row's scratch memory.
DEVICE int draw_any(const Rule& rule, const float* x, int n, unsigned* weights, SharedPtr<u64> scratch, SharedPtr<int> answer) {
    unsigned kth = 0;
    if (rule.top_k > 0 && rule.top_k < n) kth = largest(31, [&](unsigned c) {
        return total(n, scratch, [&](int i) { return ordered(x[i]) >= c ? 1u : 0u; }) >= u64(rule.top_k);
    });
    const u64 all = total(n, scratch, [&](int i) { return weights[i] = ordered(x[i]) >= kth ? rule.weight(x[i]) : 0; });
    const auto below = [&](unsigned c) { return total(n, scratch, [&](int i) { return weights[i] < c ? weights[i] : 0u; }); };
    if (!rule.by_weight()) return pick(n, rule.target(all, 0), scratch, answer, [&](int i) { return u64(weights[i]); });

    const u64 limit = rule.top_p_limit(all);
    const unsigned cut = largest(30, [&](unsigned c) { return below(c) <= limit; });
    const u64 light = below(cut), target = rule.target(all, max(light + (limit - light) / cut * cut, below(rule.min_p_limit())));
    const unsigned drawn = largest(30, [&](unsigned c) { return below(c) <= target; });
    const u64 ties = (target - below(drawn)) / drawn; // of equal weights, the highest ids come first
    return n - 1 - pick(n, ties, scratch, answer, [&](int i) { return u64(weights[n - 1 - i] == drawn); });
}

KERNEL(MOST_THREADS, 1) sample(const float* logits /*[rows, vocabulary]*/, const float* settings /*[3, rows]*/, const int* top_k /*[rows]*/,
                               const long long* randomness /*[2, rows]*/, unsigned* weights /*[rows, vocabulary]*/, int* tokens /*[rows]*/,
                               int rows, int vocabulary) {
    SHARED(u64, scratch, 33);
    SHARED(float, list_logits, MOST_THREADS);
    SHARED(int, list_ids, MOST_THREADS);
    SHARED(unsigned, list_weights, MOST_THREADS);
    SHARED(unsigned, sorted_weights, MOST_THREADS);
    SHARED(int, sorted_ids, MOST_THREADS);
    SHARED(int, listed, 1);
    SHARED(int, answer, 1);
    const int row = blockIdx.x, threads = blockDim.x;
    const float temperature = settings[row];
    const float* x = logits + (long long)row * vocabulary;
    if (threadIdx.x == 0) listed[0] = 0;
    pdl_wait();

    int token = likeliest(x, vocabulary, scratch);
    const float highest = x[token];
    const bool sane = highest > -INFINITY && highest < INFINITY;
    if (sane && temperature > 0.0f) {
        const Rule rule = {highest, 1.0f / temperature, settings[rows + row], settings[2 * rows + row], top_k[row],
                           uniform(randomness[row], randomness[rows + row])};
        // At least top-k logits reach the top-k-th of the threads' largest ones, and seldom many more: a short list to draw from.
        const bool few = rule.top_k > 0 && rule.top_k <= threads / 4;
        unsigned least = 0;
        if (few && vocabulary > threads) {
            unsigned mine = 0;
            for (int i = threadIdx.x; i < vocabulary; i += threads) mine = max(mine, ordered(x[i]));
            const auto reach = [&](unsigned c) { return total(threads, scratch, [&](int) { return mine >> 12 >= c ? 1u : 0u; }); };
            least = largest(19, [&](unsigned c) { return reach(c) >= u64(rule.top_k); }) << 12;
        }
        int n = vocabulary;
        if (few || vocabulary <= threads) {
            for (int i = threadIdx.x; i < vocabulary; i += threads) {
                const int at = ordered(x[i]) >= least ? atomic_add(listed, 1) : threads;
                if (at < threads) list_logits[at] = x[i], list_ids[at] = i;
            }
            sync_block();
            n = listed[0];
        }
        token = n <= threads ? draw_listed(rule, n, list_logits, list_ids, list_weights, sorted_weights, sorted_ids, scratch, answer)
                             : draw_any(rule, x, vocabulary, weights + (long long)row * vocabulary, scratch, answer);
    }
    if (threadIdx.x == 0) tokens[row] = sane ? token : -1;
    pdl_launch();
}
