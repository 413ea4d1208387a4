// Decode's first half of an attention layer for 1 to 8 rows: RMSNorm, the Q, K and V projections, RoPE, and the write of K and V into
// their pages, with the weights streamed once.
//
// What: qkv = (RMSNorm(x) * norm_weight, rounded to storage as rms_norm.cu rounds it) W^T; in each query and key head the pairs
// (i, i + HEAD_DIM / 2) turn by the angle of the row's position; query heads go to `query`, key and value heads into slot slots[r].
// Layout: x [ROWS, in_features]; weight [(heads + 2 * kv_heads) * HEAD_DIM, in_features], as stored or quantised (WEIGHTS, weights.cuh),
// query heads above key heads above value heads;
// cos_sin float [positions, HEAD_DIM], HEAD_DIM / 2 cosines, then sines; pages [pages, kv_heads, PAGE_SIZE, HEAD_DIM] in storage.
// Launch: block 256 always; grid = min(ceil((heads + 2 * kv_heads) * HEAD_DIM / 16), SMs * blocks that fit one SM). Dynamic shared
// memory: 32 + ROWS * in_features * sizeof(storage) bytes, above 48 KiB with the opt-in attribute; where that exceeds the device:
// rms_norm.cu, a GEMM and rope_kv.cu.
//
// Tiling: gemv.cuh, except that the two rows of weight that a warp multiplies are the two that RoPE turns together, so that the
// rotation happens in the lane that holds both sums, in fp32, ahead of the only rounding.
// Bound: memory, as gemv.cu. Bytes: those of the weights. Flops: 2 * ROWS * weight elements.
#define NORM 1
#include "gemv.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 128
#endif
#ifndef PAGE_SIZE
#define PAGE_SIZE 16
#endif

constexpr int HALF = HEAD_DIM / 2;            // pairs of a head

// Where one launch writes.
struct Destination {
    const float* cos_sin;
    const int *positions, *slots;
    storage *query, *key_pages, *value_pages;
    int heads, kv_heads;
};

// Lane r < ROWS finishes row r of one pair.
DEVICE void finish(float low, float high, int r, int pair, const Destination& to) {
    const int head = pair / HALF, i = pair % HALF;
    if (head < to.heads + to.kv_heads) {
        const float* angles = to.cos_sin + (long long)to.positions[r] * HEAD_DIM;
        const float cosine = angles[i], sine = angles[HALF + i], x = low;
        low = x * cosine - high * sine;
        high = high * cosine + x * sine;
    }
    storage* out;
    if (head < to.heads) {
        out = to.query + ((long long)r * to.heads + head) * HEAD_DIM;
    } else {
        const bool key = head < to.heads + to.kv_heads;
        const int kv_head = head - to.heads - (key ? 0 : to.kv_heads), slot = to.slots[r];
        out = (key ? to.key_pages : to.value_pages) +
              (((long long)(slot / PAGE_SIZE) * to.kv_heads + kv_head) * PAGE_SIZE + slot % PAGE_SIZE) * HEAD_DIM;
    }
    out[i] = from_float<storage>(low);
    out[HALF + i] = from_float<storage>(high);
}

KERNEL(256, BLOCKS) gemv_qkv(const storage* x /*[ROWS, in_features]*/, const float* norm_weight /*[in_features]*/,
                        const code* weight /*[(heads + 2 * kv_heads) * HEAD_DIM, in_features]*/, const scale_type* scales /*or null*/,
                        const float* cos_sin /*[positions, HEAD_DIM]*/, const int* positions /*[ROWS]*/, const int* slots /*[ROWS]*/,
                        storage* query /*[ROWS, heads * HEAD_DIM]*/, storage* key_pages, storage* value_pages
                        /*[pages, kv_heads, PAGE_SIZE, HEAD_DIM]*/, int in_features, int heads, int kv_heads, float epsilon) {
    DYNAMIC_SHARED(storage, dynamic);
    Weights weights = {weight, scales, {}, in_features};
#if WEIGHTS == 6
    SHARED(float, table, 16);
    weights.table = table;
    fill_table(table);
#endif
    const Destination to = {cos_sin, positions, slots, query, key_pages, value_pages, heads, kv_heads};
    // Pair p is elements p % HALF and p % HALF + HALF of head p / HALF.
    multiply(
        x, norm_weight, weights, dynamic, (heads + 2 * kv_heads) * HALF, epsilon,
        [](int pair, int o) { return pair / HALF * HEAD_DIM + pair % HALF + o * HALF; },
        [=](float low, float high, int r, int pair) { finish(low, high, r, pair, to); });
}
