// How gemv.cu, gemv_qkv.cu and dequantise.cu read a matrix of weights [out_features, in_features]: as it is stored, or quantised.
//
// WEIGHTS: 0 `storage`; 1 q8: int8, an f16 scale for each 32 of a row; 2 q8-row (and int8): int8, a float scale a row; 3 q4: 4 bits less 8,
// the even element in the low half of a byte, an f16 scale for each 32; 4 q4-128: the same for each 128; 5 fp8: e4m3, a float scale a row;
// 6 nf4: 4 bits that number one of 16 values, the even element in the high half, a float scale for each 64 of the whole matrix.
//
// A lane takes 16 bytes at a time, which one scale covers, and turns eight weights at once into floats. PRMT puts a code into the middle
// of a float whose exponent makes it OFFSET + code; one FFMA takes the offset off and multiplies by the scale, exactly, since
// an f16 scale times either has at most 20 significant bits. So a weight costs PRMT and FFMA, and a shift and a mask for each four; I2F
// would run at a quarter of that rate. e4m3 becomes f16 two at a time, by moving bits; nf4 looks its 16 values up in shared memory, which
// takes one shared load a weight and bounds it.
#pragma once
#include "device.cuh"

#ifndef WEIGHTS
#define WEIGHTS 0
#endif

constexpr bool QUANTISED = WEIGHTS != 0, FOUR_BITS = WEIGHTS == 3 || WEIGHTS == 4 || WEIGHTS == 6, NF4 = WEIGHTS == 6, FP8 = WEIGHTS == 5;
constexpr bool ROW_SCALED = WEIGHTS == 2 || FP8, GROUPED = QUANTISED && !ROW_SCALED;
constexpr int GROUP_SIZE = WEIGHTS == 4 ? 128 : NF4 ? 64 : 32;           // weights of a scale, where GROUPED
constexpr int PER_CODE = FOUR_BITS ? 2 : 1;                              // weights in an element of `code`
constexpr int SIZE = QUANTISED ? 16 * PER_CODE : Pack<storage>::size;    // weights in 16 bytes
constexpr int CHUNK = QUANTISED ? 8 : SIZE;                              // weights that are decoded together
constexpr int CHUNKS = SIZE / CHUNK;
constexpr float OFFSET = FOUR_BITS ? 136.0f : 32896.0f;                  // of a code of zero, in the float that PRMT makes

template <bool> struct CodeOf { using type = unsigned char; };
template <> struct CodeOf<false> { using type = storage; };
template <bool> struct ScaleOf { using type = f16; };
template <> struct ScaleOf<false> { using type = float; };
using code = CodeOf<QUANTISED>::type;
using scale_type = ScaleOf<GROUPED && !NF4>::type;

// The last row's factor, which is applied to its sum.
DEVICE float row_factor(const scale_type* scales, int row) {
    if constexpr (!ROW_SCALED) return 1.0f;
    else return to_float(scales[row]) * (FP8 ? 256.0f : 1.0f);           // an e4m3 was read as an f16, whose bias is 8 larger
}

// Where the scale of weight `column` of a row lies.
DEVICE long long scale_at(int row, int column, int in_features) {
    if constexpr (NF4) return ((long long)row * in_features + column) / GROUP_SIZE;
    else if constexpr (GROUPED) return (long long)row * ((in_features + GROUP_SIZE - 1) / GROUP_SIZE) + column / GROUP_SIZE;
    else return row;
}

// The value of an int8 (plus 128) or of four bits that lie in byte i of `bytes`, times scale; `shift` is -OFFSET * scale.
DEVICE float value_of_byte(unsigned bytes, int i, float scale, float shift) {
    const unsigned magic = FOUR_BITS ? prmt(bytes, 0x43u, 0x4055u | unsigned(i) << 8)     // 128 + code
                                     : prmt(bytes, 0x47u, 0x4505u | unsigned(i) << 4);    // 32768 + code
    return fmaf(__uint_as_float(magic), scale, shift);
}

// Eight weights from the first words of w. Row scales are left to row_factor.
DEVICE void decode(const unsigned* w, float scale, SharedPtr<float> table, float* values) {
    if constexpr (FP8) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const unsigned high = (odd ? w[i] : w[i] << 8) & 0xff00ff00u, halves = (high & 0x80008000u) | (high >> 1 & 0x3f803f80u);
                values[4 * i + odd] = to_float(f16{static_cast<unsigned short>(halves & 0xffffu)});
                values[4 * i + odd + 2] = to_float(f16{static_cast<unsigned short>(halves >> 16)});
            }
        }
    } else if constexpr (NF4) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float value = table[int(w[0] >> (4 * (i ^ 1)) & 15u)];
            values[i] = value * scale;
        }
    } else if constexpr (FOUR_BITS) {
        const unsigned even = w[0] & 0x0f0f0f0fu, odd = w[0] >> 4 & 0x0f0f0f0fu;
        const float shift = -OFFSET * scale;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            values[2 * i] = value_of_byte(even, i, scale, shift);
            values[2 * i + 1] = value_of_byte(odd, i, scale, shift);
        }
    } else if constexpr (QUANTISED) {
        const float factor = ROW_SCALED ? 1.0f : scale, shift = -OFFSET * factor;
#pragma unroll
        for (int i = 0; i < 8; ++i) values[i] = value_of_byte(w[i / 4] ^ 0x80808080u, i % 4, factor, shift);
    }
}

// One weight, for matrices whose rows are not packs of 16 bytes.
DEVICE float weight_of(const code* codes, const scale_type* scales, int row, int column, int in_features, SharedPtr<float> table) {
    const long long at = (long long)row * in_features + column;
    if constexpr (!QUANTISED) {
        return to_float(codes[at]);
    } else {
        const unsigned byte = reinterpret_cast<const unsigned char*>(codes)[at / PER_CODE], first = FOUR_BITS ? byte >> ((at % 2 != 0) == NF4 ? 0 : 4) & 15u : byte;
        const unsigned words[2] = {NF4 ? first << 4 : first, 0};
        float values[8];
        decode(words, to_float(scales[scale_at(row, column, in_features)]), table, values);
        return values[0];
    }
}

// Whether rows and scales are made of packs: nf4's blocks then lie in one row each.
DEVICE bool is_packed(int in_features) { return in_features % (NF4 ? GROUP_SIZE : SIZE) == 0; }

#if WEIGHTS == 6
// The 16 values, in shared memory; a barrier of the caller's must follow.
DEVICE void fill_table(SharedPtr<float> table) {
    if (threadIdx.x != 0) return;
    table[0] = -1.0f, table[1] = -0.6961928009986877f, table[2] = -0.5250730514526367f, table[3] = -0.39491748809814453f;
    table[4] = -0.28444138169288635f, table[5] = -0.18477343022823334f, table[6] = -0.09105003625154495f, table[7] = 0.0f;
    table[8] = 0.07958029955625534f, table[9] = 0.16093020141124725f, table[10] = 0.24611230194568634f, table[11] = 0.33791524171829224f;
    table[12] = 0.44070982933044434f, table[13] = 0.5626170039176941f, table[14] = 0.7229568362236023f, table[15] = 1.0f;
}
#endif
