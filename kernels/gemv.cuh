// What gemv.cu and gemv_qkv.cu have in common: a warp multiplies two rows of weights by all ROWS rows of x, and walks on by the grid.
//
// A lane takes 16 bytes of both rows at a time, 512 adjacent bytes a warp and load. DEPTH loads of each row stay under way: a slot is
// refilled for DEPTH steps later as soon as it is used up, across the ends of rows too, so that 8 KiB a warp and, at 16 warps, 64 to
// 128 KiB an SM are always asked for (what HBM3 takes: 25 KiB an SM). The first loads are issued before the norm and before the wait for
// the previous kernel, since weights depend on neither. x lies in shared memory as storage (NORM 1) or comes through L1 (NORM 0); W
// bypasses L1 and leaves it to x. A row's sum is taken in the same order whatever ROWS is: results do not depend on what is
// batched with a row.
// Quantised weights (weights.cuh): 16 bytes are 2 or 4 chunks of eight, so that neighbouring lanes would read x 32 or 64 bytes apart and
// two or four of them meet in a bank. Lanes therefore take their chunks in different order: chunk j ^ turn, and eight lanes read
// 128 bytes out of all banks. Decoded weights serve all rows of x.
#pragma once
#include "norm_rows.cuh"
#include "weights.cuh"

#ifndef NORM
#define NORM 1
#endif

constexpr int STEP = WARP_SIZE * SIZE;        // columns of a row that a warp loads at once
constexpr int DEPTH = 4;                      // loads of a row that are under way
// Blocks an SM at least: decoded weights for many rows need registers, and give a warp enough to do between its loads.
constexpr int BLOCKS = QUANTISED && (ROWS > 2 || sizeof(storage) == 4) ? 1 : 2;

struct Weights {
    const code* codes;
    const scale_type* scales;
    SharedPtr<float> table;                   // of nf4
    int in_features;
};

// Where a lane reads on: its first column of a round (DEPTH steps) in both rows of weight, and how many columns are left from there;
// none where there is no such group.
struct Position {
    const code* row[2];
    const scale_type* scale[2];
    int left;
};

template <class RowOf> DEVICE Position start_of(const Weights& weights, int group, int groups, RowOf row_of) {
    const int lane_column = lane_id() * SIZE;
    Position p = {{weights.codes, weights.codes}, {weights.scales, weights.scales}, 0};
    if (group < groups) {
#pragma unroll
        for (int o = 0; o < 2; ++o) {
            const int row = row_of(group, o);
            p.row[o] += ((long long)row * weights.in_features + lane_column) / PER_CODE;
            if constexpr (GROUPED) p.scale[o] += scale_at(row, lane_column, weights.in_features);
        }
        p.left = weights.in_features - lane_column;
    }
    return p;
}

// 16 bytes of one row of weights, and their scale as it is stored.
template <class Code> struct Slot {
    Pack<Code> codes;
    scale_type scale;
};

// Chunk j becomes chunk j ^ turn.
template <class Code> DEVICE void turn_chunks(Pack<Code>& p, int turn) {
#pragma unroll
    for (int bit = 1; bit < CHUNKS; bit *= 2) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int other = i ^ (bit * 4 / CHUNKS);
            if (other < i) continue;
            const unsigned a = p.words[i], b = p.words[other];
            p.words[i] = turn & bit ? b : a;
            p.words[other] = turn & bit ? a : b;
        }
    }
}

// x as the product reads it: CHUNK elements of row r from `column` on.
struct Activations {
    const storage* global;
    SharedPtr<storage> shared;
    int in_features;
    DEVICE void chunk(int r, int column, float* v) const {
#pragma unroll
        for (int c = 0; c < CHUNK; c += PACK) {
            Pack<storage> p;
            if constexpr (NORM) p = load16(shared + r * in_features + column + c);
            else p = load16(global + (long long)r * in_features + column + c);
#pragma unroll
            for (int i = 0; i < PACK; ++i) v[c + i] = p.get(i);
        }
    }
    DEVICE float element(int r, int column) const {
        if constexpr (NORM) return to_float(shared[r * in_features + column]);
        else return to_float(global[(long long)r * in_features + column]);
    }
};

// sums += one slot of both rows of weights times all rows of x, from `column` on.
template <class Code>
DEVICE void multiply_slot(Slot<Code> (&slot)[2], const Weights& weights, const Activations& activations, int column, int turn, float (&sums)[2][ROWS]) {
    if constexpr (CHUNKS > 1) turn_chunks(slot[0].codes, turn), turn_chunks(slot[1].codes, turn);
#pragma unroll
    for (int j = 0; j < CHUNKS; ++j) {
        float w[2][CHUNK];
#pragma unroll
        for (int o = 0; o < 2; ++o) {
            if constexpr (QUANTISED) {
                decode(slot[o].codes.words + j * (4 / CHUNKS), GROUPED ? to_float(slot[o].scale) : 1.0f, weights.table, w[o]);
            } else {
#pragma unroll
                for (int i = 0; i < CHUNK; ++i) w[o][i] = slot[o].codes.get(i);
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float v[CHUNK];
            activations.chunk(r, CHUNKS > 1 ? (column + turn * CHUNK) ^ (j * CHUNK) : column, v);
#pragma unroll
            for (int i = 0; i < CHUNK; ++i) {
                sums[0][r] += w[0][i] * v[i];
                sums[1][r] += w[1][i] * v[i];
            }
        }
    }
}

// Lane r < ROWS finishes row r: finish(first sum, second sum, r, group).
template <class RowOf, class Finish>
DEVICE void reduce_and_finish(float (&sums)[2][ROWS], const Weights& weights, int group, RowOf row_of, Finish finish) {
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
    if (lane_id() >= ROWS) return;
    if constexpr (ROW_SCALED) {
#pragma unroll
        for (int o = 0; o < 2; ++o) mine[o] *= row_factor(weights.scales, row_of(group, o));
    }
    finish(mine[0], mine[1], lane_id(), group);
}

// All of it. row_of(group, 0 or 1) says which two rows of weight a group is.
template <class RowOf, class Finish>
DEVICE void multiply(const storage* x, const float* norm_weight, const Weights& weights, SharedPtr<storage> dynamic, int groups, float epsilon,
                     RowOf row_of, Finish finish) {
    const int in_features = weights.in_features;
    const int warps = int(gridDim.x) * (THREADS / WARP_SIZE);
    const int first_group = int(blockIdx.x) * (THREADS / WARP_SIZE) + warp_id();
    const bool packed = is_packed(in_features);
    const int rounds = (in_features + DEPTH * STEP - 1) / (DEPTH * STEP);

    Position ahead = {};
    Slot<code> slot[DEPTH][2];
    auto fill = [&](int s) {
        if (s * STEP >= ahead.left) return;
#pragma unroll
        for (int o = 0; o < 2; ++o) {
            slot[s][o].codes = load16_stream(ahead.row[o] + s * STEP / PER_CODE);
            if constexpr (GROUPED) slot[s][o].scale = ahead.scale[o][s * STEP / GROUP_SIZE];
        }
    };
    if (packed) {
        ahead = start_of(weights, first_group, groups, row_of);
#pragma unroll
        for (int s = 0; s < DEPTH; ++s) fill(s);
    }

    pdl_wait();
    Activations activations{x, dynamic, in_features};
    if constexpr (NORM) {
        activations.shared = dynamic + SCRATCH * int(sizeof(float) / sizeof(storage));
        normalise(x, norm_weight, activations.shared, shared_cast<float>(dynamic), in_features, epsilon);
    } else if constexpr (NF4) {
        sync_block();                          // the table
    }
    pdl_launch();

    const int turn = CHUNKS > 1 ? lane_id() * CHUNKS / 8 % CHUNKS : 0;
    float sums[2][ROWS] = {};
    if (packed) {
#pragma unroll 1
        for (int group = first_group; group < groups; group += warps) {
            int column = lane_id() * SIZE;
#pragma unroll 1
            for (int round = 0; round < rounds; ++round) {
                if (round + 1 < rounds) {
                    ahead.left -= DEPTH * STEP;
#pragma unroll
                    for (int o = 0; o < 2; ++o) {
                        ahead.row[o] += DEPTH * STEP / PER_CODE;
                        if constexpr (GROUPED) ahead.scale[o] += DEPTH * STEP / GROUP_SIZE;
                    }
                } else {
                    ahead = start_of(weights, group + warps, groups, row_of);
                }
#pragma unroll
                for (int s = 0; s < DEPTH; ++s) {
                    if (column + s * STEP < in_features) multiply_slot(slot[s], weights, activations, column + s * STEP, turn, sums);
                    fill(s);
                }
                column += DEPTH * STEP;
            }
            reduce_and_finish(sums, weights, group, row_of, finish);
        }
    } else {
#pragma unroll 1
        for (int group = first_group; group < groups; group += warps) {
#pragma unroll 1
            for (int column = lane_id(); column < in_features; column += WARP_SIZE) {
                float w[2];
#pragma unroll
                for (int o = 0; o < 2; ++o) w[o] = weight_of(weights.codes, weights.scales, row_of(group, o), column, in_features, weights.table);
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const float v = activations.element(r, column);
                    sums[0][r] += w[0] * v;
                    sums[1][r] += w[1] * v;
                }
            }
            reduce_and_finish(sums, weights, group, row_of, finish);
        }
    }
}
