// Decode's first half of an attention layer for 1 to 8 rows: RMSNorm, the Q, K and V projections, RoPE, and the write of K and V into
// their pages, with the weights streamed once.
//
// What: qkv = (RMSNorm(x) * norm_weight, rounded to storage as rms_norm.cu rounds it) W^T; in each query and key head the pairs
// (i, i + HEAD_DIM / 2) turn by the angle of the row's position; query heads go to `query`, key and value heads into slot slots[r].
// Layout: x [ROWS, in_features]; weight [(heads + 2 * kv_heads) * HEAD_DIM, in_features], query heads above key heads above value heads;
// cos_sin float [positions, HEAD_DIM], HEAD_DIM / 2 cosines, then sines; pages [pages, kv_heads, PAGE_SIZE, HEAD_DIM] in storage.
// Launch: block 256 always; grid = min(ceil((heads + 2 * kv_heads) * HEAD_DIM / 16), SMs * blocks that fit one SM). Dynamic shared
// memory: 32 + ROWS * in_features * sizeof(storage) bytes, above 48 KiB with the opt-in attribute; where that exceeds the device:
// rms_norm.cu, a GEMM and rope_kv.cu.
//
// Tiling: as gemv.cu, except that the two rows of weight that a warp multiplies are the two that RoPE turns together, so that the
// rotation happens in the lane that holds both sums, in fp32, ahead of the only rounding.
// Bound: memory. Bytes: sizeof(storage) * weight elements. Flops: 2 * ROWS * weight elements.
#include "device.cuh"

#ifndef ROWS
#define ROWS 1
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 128
#endif
#ifndef PAGE_SIZE
#define PAGE_SIZE 16
#endif

constexpr int THREADS = 256;
constexpr int SIZE = Pack<storage>::size;
constexpr int STEP = WARP_SIZE * SIZE;        // columns of a row that a warp loads at once
constexpr int DEPTH = 4;                      // loads of a row that are under way
constexpr int HALF = HEAD_DIM / 2;            // pairs of a head
constexpr int SCRATCH = 8;                    // floats: one sum a warp

// Where a lane reads on: its first column of a round (DEPTH steps) in both rows of weight, and how many columns are left from there;
// none where there is no such pair. Pair p is elements p % HALF and p % HALF + HALF of head p / HALF.
struct Position {
    const storage* row[2];
    int left;
};

DEVICE Position start_of(const storage* weight, int pair, int pairs, int in_features) {
    const int lane_column = lane_id() * (in_features % SIZE == 0 ? SIZE : 1);
    Position p = {{weight, weight}, 0};
    if (pair < pairs) {
        p.row[0] += (long long)(pair / HALF * HEAD_DIM + pair % HALF) * in_features + lane_column;
        p.row[1] = p.row[0] + (long long)HALF * in_features;
        p.left = in_features - lane_column;
    }
    return p;
}

// RMSNorm of all rows into shared memory. The order of the sums depends on THREADS only.
DEVICE void normalise(const storage* x, const float* norm_weight, SharedPtr<storage> normalised, SharedPtr<float> scratch, int in_features,
                      float epsilon) {
    const int first = int(threadIdx.x);
#pragma unroll 1
    for (int r = 0; r < ROWS; ++r) {
        const storage* row = x + (long long)r * in_features;
        float squares = 0.0f;
        if (in_features % SIZE == 0) {
#pragma unroll 2
            for (int c = first * SIZE; c < in_features; c += THREADS * SIZE) {
                const Pack<storage> v = load16(row + c);
#pragma unroll
                for (int i = 0; i < SIZE; ++i) squares += v.get(i) * v.get(i);
            }
        } else {
#pragma unroll 1
            for (int c = first; c < in_features; c += THREADS) squares += to_float(row[c]) * to_float(row[c]);
        }
        squares = warp_sum(squares);
        sync_block();                          // the scratch of the row before is read
        if (lane_id() == 0) scratch[warp_id()] = squares;
        sync_block();
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < THREADS / WARP_SIZE; ++w) sum += scratch[w];
        const float scale = rsqrtf(sum / float(in_features) + epsilon);
        if (in_features % SIZE == 0) {
#pragma unroll 2
            for (int c = first * SIZE; c < in_features; c += THREADS * SIZE) {
                Pack<storage> v = load16(row + c);
#pragma unroll
                for (int i = 0; i < SIZE; i += 4) {
                    const Pack<float> w = load16(norm_weight + c + i);
                    v.set2(i, v.get(i) * scale * w.get(0), v.get(i + 1) * scale * w.get(1));
                    v.set2(i + 2, v.get(i + 2) * scale * w.get(2), v.get(i + 3) * scale * w.get(3));
                }
                store16(normalised + r * in_features + c, v);
            }
        } else {
#pragma unroll 1
            for (int c = first; c < in_features; c += THREADS)
                normalised[r * in_features + c] = from_float<storage>(to_float(row[c]) * scale * norm_weight[c]);
        }
    }
    sync_block();
}

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

DEVICE void reduce_and_finish(float (&sums)[2][ROWS], int pair, const Destination& to) {
    float mine[2] = {};
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int o = 0; o < 2; ++o) {
            const float sum = warp_sum(sums[o][r]);
            if (lane_id() == r) mine[o] = sum;
            sums[o][r] = 0.0f;
        }
    }
    if (lane_id() < ROWS) finish(mine[0], mine[1], lane_id(), pair, to);
}

KERNEL(256, 2) gemv_qkv(const storage* x /*[ROWS, in_features]*/, const float* norm_weight /*[in_features]*/,
                        const storage* weight /*[(heads + 2 * kv_heads) * HEAD_DIM, in_features]*/,
                        const float* cos_sin /*[positions, HEAD_DIM]*/, const int* positions /*[ROWS]*/, const int* slots /*[ROWS]*/,
                        storage* query /*[ROWS, heads * HEAD_DIM]*/, storage* key_pages, storage* value_pages
                        /*[pages, kv_heads, PAGE_SIZE, HEAD_DIM]*/, int in_features, int heads, int kv_heads, float epsilon) {
    DYNAMIC_SHARED(storage, dynamic);
    const int pairs = (heads + 2 * kv_heads) * HALF;
    const int warps = int(gridDim.x) * (THREADS / WARP_SIZE);
    const int first_pair = int(blockIdx.x) * (THREADS / WARP_SIZE) + warp_id();
    const Destination to = {cos_sin, positions, slots, query, key_pages, value_pages, heads, kv_heads};
    const bool packed = in_features % SIZE == 0;
    const int rounds = (in_features + DEPTH * STEP - 1) / (DEPTH * STEP);

    Position ahead = start_of(weight, first_pair, pairs, in_features);
    Pack<storage> slot[DEPTH][2];
    auto fill = [&](int s) {
        if (s * STEP < ahead.left) {
            slot[s][0] = load16_stream(ahead.row[0] + s * STEP);
            slot[s][1] = load16_stream(ahead.row[1] + s * STEP);
        }
    };
    if (packed) {
#pragma unroll
        for (int s = 0; s < DEPTH; ++s) fill(s);
    }

    pdl_wait();
    const SharedPtr<storage> normalised = dynamic + SCRATCH * int(sizeof(float) / sizeof(storage));
    normalise(x, norm_weight, normalised, shared_cast<float>(dynamic), in_features, epsilon);
    pdl_launch();

    float sums[2][ROWS] = {};
    if (packed) {
#pragma unroll 1
        for (int pair = first_pair; pair < pairs; pair += warps) {
            int column = lane_id() * SIZE;
#pragma unroll 1
            for (int round = 0; round < rounds; ++round) {
                if (round + 1 < rounds) {
                    ahead.row[0] += DEPTH * STEP, ahead.row[1] += DEPTH * STEP, ahead.left -= DEPTH * STEP;
                } else {
                    ahead = start_of(weight, pair + warps, pairs, in_features);
                }
#pragma unroll
                for (int s = 0; s < DEPTH; ++s) {
                    if (column + s * STEP < in_features) {
#pragma unroll
                        for (int r = 0; r < ROWS; ++r) {
                            const Pack<storage> v = load16(normalised + r * in_features + column + s * STEP);
#pragma unroll
                            for (int i = 0; i < SIZE; ++i) {
                                sums[0][r] += slot[s][0].get(i) * v.get(i);
                                sums[1][r] += slot[s][1].get(i) * v.get(i);
                            }
                        }
                    }
                    fill(s);
                }
                column += DEPTH * STEP;
            }
            reduce_and_finish(sums, pair, to);
        }
    } else {
#pragma unroll 1
        for (int pair = first_pair; pair < pairs; pair += warps) {
            const Position p = start_of(weight, pair, pairs, in_features);
#pragma unroll 1
            for (int step = 0; step < p.left; step += WARP_SIZE) {
                const float w0 = to_float(p.row[0][step]), w1 = to_float(p.row[1][step]);
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const float v = to_float(normalised[r * in_features + lane_id() + step]);
                    sums[0][r] += w0 * v;
                    sums[1][r] += w1 * v;
                }
            }
            reduce_and_finish(sums, pair, to);
        }
    }
}
