// mma and ldmatrix, done by the lane that arrives last for the whole warp, through the pointers that each lane left in its slot.
//
// The arithmetic is built twice: for any processor, and with fused multiply-add and half conversion where the processor has them.
#include <cstring>

#include "worker.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define EMURT_FAST __attribute__((target("avx2,fma,f16c")))
#endif

namespace emurt {

namespace {

typedef float Row __attribute__((vector_size(32)));  // eight columns of c

void widen_f16(const uint16_t* h, float* x, int count) {
    for (int i = 0; i < count; ++i) {
        const unsigned sign = (h[i] & 0x8000u) << 16, exponent = h[i] >> 10 & 31, mantissa = h[i] & 0x3ffu;
        if (exponent == 0) {
            x[i] = static_cast<float>(mantissa) * (sign ? -5.9604644775390625e-8f : 5.9604644775390625e-8f);
            continue;
        }
        const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
        std::memcpy(&x[i], &bits, 4);
    }
}
void widen_bf16(const uint16_t* h, float* x, int count) {
    for (int i = 0; i < count; ++i) {
        const uint32_t bits = static_cast<uint32_t>(h[i]) << 16;
        std::memcpy(&x[i], &bits, 4);
    }
}
#if defined(EMURT_FAST)
EMURT_FAST void widen_f16_fast(const uint16_t* h, float* x, int count) {
    for (int i = 0; i < count; i += 8) _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(h + i))));
}
EMURT_FAST void widen_bf16_fast(const uint16_t* h, float* x, int count) {
    for (int i = 0; i < count; i += 8)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(x + i),
                            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(h + i))), 16));
}
#endif

// Fragments by the PTX manual: lane 4g + t holds of a rows g and g + 8, columns 2t, 2t + 1 and 2t + 8, 2t + 9; of b rows 2t, 2t + 1
// and 2t + 8, 2t + 9 of column g; of c row g and g + 8, columns 2t, 2t + 1.
inline __attribute__((always_inline)) void mma(Warp& w, void (*widen)(const uint16_t*, float*, int)) {
    const MmaOperands* operands[32];
    for (int i = 0; i < 32; ++i) operands[i] = reinterpret_cast<const MmaOperands*>(w.slots[w.parity][i]);
    alignas(32) uint32_t a_words[16][8];
    alignas(32) uint16_t b_halves[16][8];
    Row c[16];
    for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        const MmaOperands& o = *operands[lane];
        a_words[g][t] = o.a[0];
        a_words[g + 8][t] = o.a[1];
        a_words[g][t + 4] = o.a[2];
        a_words[g + 8][t + 4] = o.a[3];
        for (int half = 0; half < 2; ++half) {
            b_halves[8 * half + 2 * t][g] = static_cast<uint16_t>(o.b[half]);
            b_halves[8 * half + 2 * t + 1][g] = static_cast<uint16_t>(o.b[half] >> 16);
        }
        std::memcpy(reinterpret_cast<float*>(&c[g]) + 2 * t, o.c, 8);
        std::memcpy(reinterpret_cast<float*>(&c[g + 8]) + 2 * t, o.c + 2, 8);
    }
    alignas(32) float a[16][16], b[16][8];
    uint16_t a_halves[16 * 16];
    std::memcpy(a_halves, a_words, sizeof a_halves);
    widen(a_halves, &a[0][0], 256);
    widen(&b_halves[0][0], &b[0][0], 128);
    Row b_rows[16];
    std::memcpy(b_rows, b, sizeof b);
    for (int m = 0; m < 16; m += 4)
        for (int k = 0; k < 16; ++k) {
            c[m] += a[m][k] * b_rows[k];
            c[m + 1] += a[m + 1][k] * b_rows[k];
            c[m + 2] += a[m + 2][k] * b_rows[k];
            c[m + 3] += a[m + 3][k] * b_rows[k];
        }
    for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        std::memcpy(operands[lane]->c, reinterpret_cast<const float*>(&c[g]) + 2 * t, 8);
        std::memcpy(operands[lane]->c + 2, reinterpret_cast<const float*>(&c[g + 8]) + 2 * t, 8);
    }
}

void mma_any(Warp& w, bool f16) { mma(w, f16 ? widen_f16 : widen_bf16); }
#if defined(EMURT_FAST)
EMURT_FAST void mma_fast(Warp& w, bool f16) { mma(w, f16 ? widen_f16_fast : widen_bf16_fast); }
bool has_fast() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }
#else
void mma_fast(Warp& w, bool f16) { mma_any(w, f16); }
bool has_fast() { return false; }
#endif

void complete_mma(Warp& w, bool f16) {
    static const bool fast = has_fast();
    if (fast) mma_fast(w, f16);
    else mma_any(w, f16);
}

}  // namespace

void complete_mma_f16(Warp& w) { complete_mma(w, true); }
void complete_mma_bf16(Warp& w) { complete_mma(w, false); }

// Lane 8j + i left the address of row i of matrix j; lane 4g + t receives of each matrix row g, columns 2t, 2t + 1, or, transposed,
// rows 2t, 2t + 1 of column g.
void complete_ldmatrix(Warp& w, int matrices, bool transposed) {
    const LdmatrixOperands* operands[32];
    for (int i = 0; i < 32; ++i) operands[i] = reinterpret_cast<const LdmatrixOperands*>(w.slots[w.parity][i]);
    uint32_t words[4][32];  // by matrix and receiving lane: row-major, a matrix's words are already in the order of the lanes
    for (int j = 0; j < matrices; ++j) {
        for (int i = 0; i < 8; ++i) std::memcpy(&words[j][4 * i], operands[8 * j + i]->row, 16);
        if (!transposed) continue;
        uint16_t halves[8][8];
        std::memcpy(halves, words[j], sizeof halves);
        for (int lane = 0; lane < 32; ++lane)
            words[j][lane] = static_cast<uint32_t>(halves[2 * (lane % 4)][lane / 4]) | static_cast<uint32_t>(halves[2 * (lane % 4) + 1][lane / 4]) << 16;
    }
    for (int lane = 0; lane < 32; ++lane) {
        unsigned* const r = operands[lane]->r;
        for (int j = 0; j < matrices; ++j) r[j] = words[j][lane];
    }
}

}  // namespace emurt
