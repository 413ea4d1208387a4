// Linear layers of 1 to 8 rows, for decode: y = epilogue(norm(x) W^T + bias), W streamed once.
//
// What: NORM 1 takes RMSNorm(x) * norm_weight, rounded to storage as rms_norm.cu rounds it, in place of x. EPILOGUE: 0 store, 1 exact
// GELU, 2 add onto y (the residual), 3 SwiGLU: weight is [gate; up], 2 * out_features rows, y = silu(gate) * up, 4 store as float.
// Layout: x [ROWS, in_features], weight [out, in_features] (or [2 * out, in_features]), as stored or quantised (WEIGHTS, weights.cuh),
// y [ROWS, out_features]; bias float or null.
// Launch: block 256 always; grid = min(ceil(out_features / (8 * rows a warp)), SMs * blocks that fit one SM), where a warp takes 2 rows
// of y (1 with SwiGLU) at a time and walks on by the grid. Dynamic shared memory: NORM ? (32 + ROWS * in_features * sizeof(storage))
// bytes : 0, above 48 KiB with the opt-in attribute; where that exceeds the device, rms_norm.cu and NORM 0 do the same.
//
// Tiling: gemv.cuh.
// Bound: memory. Bytes: those of the weights. Flops: 2 * ROWS * weight elements.
// Inner loop, from the SASS for sm_90a at one row of bf16: a step of 16 bytes of both rows is 2 LDG.E.128, 16 FFMA and 16 conversions of
// weights (IMAD.U32 or LOP3: a bf16 is the upper half of a float), and the load and conversion of 8 x, which both rows share: about 50
// instructions for 32 bytes a lane, so HBM is the limit and not the issue rate (an H200 has issue slots for 7 instructions a byte of its bandwidth). Each
// row of x more adds 16 FFMA and 10 for x. Slots are registers, refilled where they were used up: no shared memory, no barrier.
// Quantised: 4 bits take a PRMT, an FFMA and 0.6 LOP3 a weight ahead of the FFMA, 4.1 in all at one row: an H200 has the time for 3.7
// while HBM brings them, so that q4 is bound by the issue rate at about nine tenths of its bandwidth; 8 bits have twice the time. More
// rows share the decoding.
#include "gemv.cuh"

#ifndef EPILOGUE
#define EPILOGUE 0
#endif
#if EPILOGUE == 4
using output = float;
#else
using output = storage;
#endif

constexpr bool GATED = EPILOGUE == 3;
constexpr int OUTPUTS = GATED ? 1 : 2;        // columns of y that a warp makes at a time; two rows of weight either way

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

KERNEL(256, BLOCKS) gemv(const storage* x /*[ROWS, in_features]*/, const float* norm_weight /*[in_features]*/,
                    const code* weight /*[out_features, in_features], twice that with SwiGLU*/, const scale_type* scales /*or null*/,
                    const float* bias /*or null*/, output* y /*[ROWS, out_features]*/, int in_features, int out_features, float epsilon) {
    DYNAMIC_SHARED(storage, dynamic);
    Weights weights = {weight, scales, {}, in_features};
#if WEIGHTS == 6
    SHARED(float, table, 16);
    weights.table = table;
    fill_table(table);
#endif
    multiply(
        x, norm_weight, weights, dynamic, (out_features + OUTPUTS - 1) / OUTPUTS, epsilon,
        [=](int group, int o) {
            if constexpr (GATED) return group + o * out_features;
            else return min(2 * group + o, out_features - 1);
        },
        [=](float first, float second, int r, int group) { finish(first, second, r, group, bias, y, out_features); });
}
