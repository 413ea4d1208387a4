#include "device.cuh"

// Attention of one query row a sequence over its paged keys and values (decoding), cut into stretches ("splits") of SPLIT_TOKENS
// keys, and the step that joins them. A split's state is the mergeable triple (largest score, sum of weights, weighted sum of values).
//
// Launch: attention_decode: grid (x, heads / GROUP, rows) with any number x of blocks to share the splits, at best as many as the
//   longest context has; block 128 threads (fp32 storage: 256), dynamic shared memory GROUP * TEAMS * WIDTH * 4 bytes with TEAMS and WIDTH as below
//   (HEAD_DIM 128 in 16 bits: 16896 for every GROUP). attention_combine: grid (heads, rows), block HEAD_DIM rounded up to 32, at most
//   128; dynamic shared memory splits * 4 bytes.
// A row's position is its context length - 1. A split covers fixed positions, and the joining is in their order: the result depends on
//   the row's context alone, neither on the grid nor on `splits` nor on the batch. That costs nothing: 128 tokens are short enough
//   for 192 blocks at 32 heads and 700 tokens, and a state is 0.8 % of the bytes it was made from.
// Layout: a team of LANES lanes has a key at a time, each PIECES 16-byte pieces of it; all KEYS keys of the team, and their values, are
//   loaded into registers before anything is computed: 512 bytes a thread in flight at HEAD_DIM 128, 128 KB an SM with two blocks, several
//   times what the latency of memory asks for. Query heads of one kv head share the loads (GROUP); where heads / kv_heads is 8, two blocks
//   read the same keys, the second from L2. One pass: the block's largest score is known before any weight is computed.
// Bound by memory: 2 * context * kv_heads * HEAD_DIM * sizeof(storage) bytes a row, 4 * context * heads * HEAD_DIM flops; 700 tokens of
//   LLaMA-7B are 11.5 MB a layer. About 1000 instructions a warp and 16 KB of keys and values: a fifth of the issue slots at 3.3 TB/s.
//   SASS of sm_90a, bf16, HEAD_DIM 128: 4 LDG (pages), 32 LDG.128 in a row, then 256 FFMA, 11 SHFL; 242 registers, no spills (before
//   sm_90, where no pdl_wait stands between, half of the values are asked for during the first FFMAs: 154 registers).

#ifndef GROUP
#define GROUP 1
#endif
#ifndef SPLIT_TOKENS
#define SPLIT_TOKENS 128
#endif

constexpr int PACK = Pack<storage>::size;
constexpr int CHUNKS = (HEAD_DIM + PACK - 1) / PACK; // 16-byte pieces of a row; the last may be short
static_assert(GROUP == 1 || GROUP == 2 || GROUP == 4, "more query heads than four overflow the registers");
constexpr bool WHOLE = HEAD_DIM % PACK == 0;
constexpr int THREADS = sizeof(storage) == 4 ? 256 : 128, WARPS = THREADS / WARP_SIZE;

// Lanes that share a key: at least two, so that they ask for whole 32-byte sectors, and enough to leave a lane four pieces, or
// with more query heads fewer (their sums are what fills the registers).
DEVICE constexpr int lanes_a_key() {
    const int pieces = GROUP >= 4 ? 1 : 4 / GROUP;
    int lanes = 1;
    while (lanes < WARP_SIZE && CHUNKS % (2 * lanes) == 0 && (lanes < 2 || CHUNKS / lanes > pieces)) lanes *= 2;
    return lanes;
}
constexpr int LANES = lanes_a_key(), PIECES = CHUNKS / LANES;
constexpr int TEAMS = THREADS / LANES;                   // each handles one key at a time
constexpr int KEYS = (SPLIT_TOKENS + TEAMS - 1) / TEAMS; // keys a team handles of a split, all in registers at once
constexpr int WIDTH = CHUNKS * PACK + 4;                 // of a row of sums in shared memory; the sum of weights is at CHUNKS * PACK
constexpr float HIDDEN = -1e30f;                         // finite: a difference of two of them is 0, not NaN

// Piece `chunk` of a row of HEAD_DIM elements, zeros behind the row's end.
DEVICE Pack<storage> load_piece(const storage* row, int chunk) {
    if constexpr (WHOLE) return load16(row + chunk * PACK);
    Pack<storage> v = {};
#pragma unroll
    for (int i = 0; i < PACK; ++i) v.set(i, chunk * PACK + i < HEAD_DIM ? to_float(row[chunk * PACK + i]) : 0.0f);
    return v;
}

KERNEL(THREADS, sizeof(storage) == 4 ? 1 : 2) attention_decode(
    const storage* query /*[tokens, heads * HEAD_DIM]*/, const storage* key_pages /*[pages, kv_heads, PAGE_SIZE, HEAD_DIM]*/,
    const storage* value_pages /*as keys*/, float* partial /*[rows, heads, splits, HEAD_DIM + 2]*/, const int* row_numbers /*[rows]*/,
    const int* row_sequences /*[rows]*/, const int* context_lengths /*[sequences]*/, const int* block_tables /*[sequences, max_blocks]*/,
    int max_blocks, int rows, int heads, int kv_heads, int splits, float scale) {
    DYNAMIC_SHARED(float, sums); // [GROUP, TEAMS, WIDTH]
    SHARED(float, peaks, GROUP * WARPS);
    const int row = blockIdx.z, head = blockIdx.y * GROUP, kv_head = head / (heads / kv_heads);
    const int lane = lane_id(), warp = warp_id(), team = threadIdx.x / LANES, part = threadIdx.x % LANES;
    const int token = row_numbers[row], sequence = token < 0 ? 0 : row_sequences[row];
    const int context = token < 0 ? 0 : context_lengths[sequence];
    const int* block_table = block_tables + (long long)sequence * max_blocks;
    bool waited = false;

    for (int split = blockIdx.x; split * SPLIT_TOKENS < context; split += gridDim.x) {
        const int first = split * SPLIT_TOKENS, count = min(SPLIT_TOKENS, context - first);
        // Keys of earlier steps were complete before this step began; only the newest one is the previous kernel's work. So all
        // splits but the last read while that kernel still runs.
        if (!waited && first + count == context) waited = true, pdl_wait();
        Pack<storage> k[KEYS][PIECES], v[KEYS][PIECES];
        long long at[KEYS];
#pragma unroll
        for (int j = 0; j < KEYS; ++j) {
            const int key = first + min(j * TEAMS + team, count - 1); // past the end: the last key again, with weight zero
            at[j] = ((long long)block_table[key / PAGE_SIZE] * kv_heads + kv_head) * (PAGE_SIZE * HEAD_DIM) + key % PAGE_SIZE * HEAD_DIM;
        }
#pragma unroll
        for (int j = 0; j < KEYS; ++j) {
#pragma unroll
            for (int i = 0; i < PIECES; ++i) k[j][i] = load_piece(key_pages + at[j], i * LANES + part);
        }
#pragma unroll
        for (int j = 0; j < KEYS; ++j) {
#pragma unroll
            for (int i = 0; i < PIECES; ++i) v[j][i] = load_piece(value_pages + at[j], i * LANES + part);
        }
        if (!waited) waited = true, pdl_wait();

        float score[GROUP][KEYS];
#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            const storage* q_row = query + ((long long)token * heads + head + g) * HEAD_DIM;
            float dot[KEYS] = {};
#pragma unroll
            for (int i = 0; i < PIECES; ++i) {
                const Pack<storage> q = load_piece(q_row, i * LANES + part);
#pragma unroll
                for (int e = 0; e < PACK; ++e) {
#pragma unroll
                    for (int j = 0; j < KEYS; ++j) dot[j] += q.get(e) * k[j][i].get(e);
                }
            }
            float peak = HIDDEN;
#pragma unroll
            for (int j = 0; j < KEYS; ++j) {
#pragma unroll
                for (int mask = 1; mask < LANES; mask *= 2) dot[j] += shfl_xor(dot[j], mask);
                score[g][j] = j * TEAMS + team < count ? dot[j] * (scale * 1.44269504f) : HIDDEN; // powers of two instead of e
                peak = fmaxf(peak, score[g][j]);
            }
#pragma unroll
            for (int mask = LANES; mask < WARP_SIZE; mask *= 2) peak = fmaxf(peak, shfl_xor(peak, mask));
            if (lane == 0) peaks[g * WARPS + warp] = peak;
        }
        sync_block();

#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            float peak = peaks[g * WARPS], total = 0, acc[PIECES * PACK] = {};
#pragma unroll
            for (int w = 1; w < WARPS; ++w) peak = fmaxf(peak, peaks[g * WARPS + w]);
#pragma unroll
            for (int j = 0; j < KEYS; ++j) {
                const float weight = fast_exp2(score[g][j] - peak);
                total += weight;
#pragma unroll
                for (int i = 0; i < PIECES * PACK; ++i) acc[i] += weight * v[j][i / PACK].get(i % PACK);
            }
            SharedPtr<float> mine = sums + (g * TEAMS + team) * WIDTH;
#pragma unroll
            for (int i = 0; i < PIECES * PACK; i += 4) {
                Pack<float> four;
#pragma unroll
                for (int e = 0; e < 4; ++e) four.set(e, acc[i + e]);
                store16(mine + ((i / PACK * LANES + part) * PACK + i % PACK), four);
            }
            if (part == 0) mine[CHUNKS * PACK] = total;
        }
        sync_block();

        for (int i = threadIdx.x; i < GROUP * (HEAD_DIM + 2); i += THREADS) {
            const int g = i / (HEAD_DIM + 2), column = i % (HEAD_DIM + 2);
            float* to = partial + (((long long)row * heads + head + g) * splits + split) * (HEAD_DIM + 2);
            float x = peaks[g * WARPS];
            if (column == HEAD_DIM) {
                for (int w = 1; w < WARPS; ++w) x = fmaxf(x, peaks[g * WARPS + w]);
            } else {
                SharedPtr<float> from = sums + (g * TEAMS * WIDTH + (column < HEAD_DIM ? column : CHUNKS * PACK));
                x = 0;
#pragma unroll 8
                for (int t = 0; t < TEAMS; ++t) x += from[t * WIDTH];
            }
            to[column] = x;
        }
        sync_block(); // before the next split writes peaks and sums
    }
    if (!waited) pdl_wait();
    pdl_launch();
}

KERNEL(128, 8) attention_combine(const float* partial /*[rows, heads, splits, HEAD_DIM + 2]*/, const int* row_numbers /*[rows]*/,
                                 const int* row_sequences /*[rows]*/, const int* context_lengths /*[sequences]*/,
                                 storage* out /*[tokens, heads * HEAD_DIM]*/, int rows, int heads, int splits) {
    DYNAMIC_SHARED(float, weights); // [splits]
    SHARED(float, scratch, 33);
    const int head = blockIdx.x, row = blockIdx.y, token = row_numbers[row];
    const int count = token < 0 ? 0 : (context_lengths[row_sequences[row]] + SPLIT_TOKENS - 1) / SPLIT_TOKENS;
    pdl_wait();
    const float* states = partial + ((long long)row * heads + head) * splits * (HEAD_DIM + 2);
    float peak = HIDDEN, total = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) peak = fmaxf(peak, states[i * (HEAD_DIM + 2) + HEAD_DIM]);
    peak = block_max(peak, scratch);
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        const float weight = fast_exp2(states[i * (HEAD_DIM + 2) + HEAD_DIM] - peak);
        weights[i] = weight;
        total += weight * states[i * (HEAD_DIM + 2) + HEAD_DIM + 1];
    }
    total = block_sum(total, scratch); // its barriers also publish the weights
    pdl_launch();
    for (int d = threadIdx.x; d < HEAD_DIM && count > 0; d += blockDim.x) {
        float x = 0;
#pragma unroll 8
        for (int i = 0; i < count; ++i) x += weights[i] * states[i * (HEAD_DIM + 2) + d];
        out[((long long)token * heads + head) * HEAD_DIM + d] = from_float<storage>(x / total);
    }
}
