// Linear layers of 1 to 8 rows, for decode: y = epilogue(norm(x) W^T + bias), W streamed once.
//
// What: NORM 1 takes RMSNorm(x) * norm_weight, rounded to storage as rms_norm.cu rounds it, in place of x. EPILOGUE: 0 store, 1 exact
// GELU, 2 add onto y (the residual), 3 SwiGLU: weight is [gate; up], 2 * out_features rows, y = silu(gate) * up, 4 store as float.
// Layout: x [ROWS, in_features], weight [out, in_features] (or [2 * out, in_features]), y [ROWS, out_features]; bias float or null.
// Launch: block 256 always; grid = min(ceil(out_features / (8 * rows a warp)), SMs * blocks that fit one SM), where a warp takes 2 rows
// of y (1 with SwiGLU) at a time and walks on by the grid. Dynamic shared memory: NORM ? (32 + ROWS * in_features * sizeof(storage))
// bytes : 0, above 48 KiB with the opt-in attribute; where that exceeds the device, rms_norm.cu and NORM 0 do the same.
//
// Tiling: a warp multiplies two rows of W by all rows of x: a lane takes 16 bytes of each row at a time, 512 adjacent bytes a warp and
// load. DEPTH loads of each row stay under way: a slot is refilled for the step after next as soon as it is used up, across the ends of
// rows too, so that 8 KiB a warp and, at 16 warps, 64 to 128 KiB an SM are always asked for (what HBM3 takes: 25 KiB an SM). The first
// loads are issued before the norm and before the wait for the previous kernel, since weights depend on neither. x lies in shared
// memory as storage (NORM 1) or comes through L1 (NORM 0); W bypasses L1 and leaves it to x.
// A row's sum is taken in the same order whatever ROWS is: results do not depend on what is batched with a row.
// Bound: memory. Bytes: sizeof(storage) * weight elements. Flops: 2 * ROWS * weight elements. The inner loop costs 2 conversions and
// 2 * ROWS FMAs a pair of weights and ROWS / 2 conversions of x: at 8 rows about 22 instructions a 4 bytes, under the issue rate still.
#include "device.cuh"

#ifndef ROWS
#define ROWS 1
#endif
#ifndef NORM
#define NORM 1
#endif
#ifndef EPILOGUE
#define EPILOGUE 0
#endif
#if EPILOGUE == 4
using output = float;
#else
using output = storage;
#endif

constexpr int THREADS = 256;
constexpr int SIZE = Pack<storage>::size;
constexpr int STEP = WARP_SIZE * SIZE;        // columns of a row that a warp loads at once
constexpr int DEPTH = 4;                      // loads of a row that are under way
constexpr bool GATED = EPILOGUE == 3;
constexpr int OUTPUTS = GATED ? 1 : 2;        // columns of y that a warp makes at a time; two rows of weight either way
constexpr int SCRATCH = 8;                    // floats: one sum a warp

// Where a lane reads on: its first column of a round (DEPTH steps) in both rows of weight, and how many columns are left from there;
// none where there is no such group.
struct Position {
    const storage* row[2];
    int left;
};

DEVICE Position start_of(const storage* weight, int group, int groups, int in_features, int out_features) {
    const int first = GATED ? group : 2 * group, second = GATED ? group + out_features : min(2 * group + 1, out_features - 1);
    const int lane_column = lane_id() * (in_features % SIZE == 0 ? SIZE : 1);
    Position p = {{weight, weight}, 0};
    if (group < groups) {
        p.row[0] += (long long)first * in_features + lane_column;
        p.row[1] += (long long)second * in_features + lane_column;
        p.left = in_features - lane_column;
    }
    return p;
}

// x as the product reads it: pack p of row r.
struct Activations {
    const storage* global;
    SharedPtr<storage> shared;
    int in_features;
    DEVICE Pack<storage> pack(int r, int column) const {
        if constexpr (NORM) return load16(shared + r * in_features + column);
        else return load16(global + (long long)r * in_features + column);
    }
    DEVICE float element(int r, int column) const {
        if constexpr (NORM) return to_float(shared[r * in_features + column]);
        else return to_float(global[(long long)r * in_features + column]);
    }
};

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

// Lane r < ROWS finishes row r of one group.
DEVICE void finish(float first, float second, int r, int group, const float* bias, output* y, int out_features) {
    const float sums[2] = {first, second};
    const long long at = (long long)r * out_features;
    if constexpr (GATED) {
        const float gate = sums[0] + (bias ? bias[group] : 0.0f), up = sums[1] + (bias ? bias[out_features + group] : 0.0f);
        y[at + group] = from_float<output>(gate / (1.0f + expf(-gate)) * up);
    } else {
#pragma unroll
        for (int o = 0; o < 2; ++o) {
            const int column = 2 * group + o;
            if (column >= out_features) continue;
            float v = sums[o] + (bias ? bias[column] : 0.0f);
            if constexpr (EPILOGUE == 1) v = 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
            if constexpr (EPILOGUE == 2) v += to_float(y[at + column]);
            y[at + column] = from_float<output>(v);
        }
    }
}

DEVICE void reduce_and_finish(float (&sums)[2][ROWS], int group, const float* bias, output* y, int out_features) {
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
    if (lane_id() < ROWS) finish(mine[0], mine[1], lane_id(), group, bias, y, out_features);
}

KERNEL(256, 2) gemv(const storage* x /*[ROWS, in_features]*/, const float* norm_weight /*[in_features]*/,
                    const storage* weight /*[out_features, in_features], twice that with SwiGLU*/, const float* bias /*or null*/,
                    output* y /*[ROWS, out_features]*/, int in_features, int out_features, float epsilon) {
    DYNAMIC_SHARED(storage, dynamic);
    const int groups = (out_features + OUTPUTS - 1) / OUTPUTS;
    const int warps = int(gridDim.x) * (THREADS / WARP_SIZE);
    const int first_group = int(blockIdx.x) * (THREADS / WARP_SIZE) + warp_id();
    const bool packed = in_features % SIZE == 0;
    const int rounds = (in_features + DEPTH * STEP - 1) / (DEPTH * STEP);

    Position ahead = start_of(weight, first_group, groups, in_features, out_features);
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
    Activations activations{x, dynamic, in_features};
    if constexpr (NORM) {
        const SharedPtr<float> scratch = shared_cast<float>(dynamic);
        activations.shared = dynamic + SCRATCH * int(sizeof(float) / sizeof(storage));
        normalise(x, norm_weight, activations.shared, scratch, in_features, epsilon);
    }
    pdl_launch();

    float sums[2][ROWS] = {};
    if (packed) {
#pragma unroll 1
        for (int group = first_group; group < groups; group += warps) {
            int column = lane_id() * SIZE;
#pragma unroll 1
            for (int round = 0; round < rounds; ++round) {
                if (round + 1 < rounds) {
                    ahead.row[0] += DEPTH * STEP, ahead.row[1] += DEPTH * STEP, ahead.left -= DEPTH * STEP;
                } else {
                    ahead = start_of(weight, group + warps, groups, in_features, out_features);
                }
#pragma unroll
                for (int s = 0; s < DEPTH; ++s) {
                    if (column + s * STEP < in_features) {
#pragma unroll
                        for (int r = 0; r < ROWS; ++r) {
                            const Pack<storage> v = activations.pack(r, column + s * STEP);
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
            reduce_and_finish(sums, group, bias, y, out_features);
        }
    } else {
#pragma unroll 1
        for (int group = first_group; group < groups; group += warps) {
            const Position p = start_of(weight, group, groups, in_features, out_features);
#pragma unroll 1
            for (int step = 0; step < p.left; step += WARP_SIZE) {
                const float w0 = to_float(p.row[0][step]), w1 = to_float(p.row[1][step]);
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const float v = activations.element(r, lane_id() + step);
                    sums[0][r] += w0 * v;
                    sums[1][r] += w1 * v;
                }
            }
            reduce_and_finish(sums, group, bias, y, out_features);
        }
    }
}
