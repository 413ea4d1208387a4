// The kernels' vocabulary on the emulated device: the same names as in kernels/device.cuh, in plain C++ for the host's compiler.
// Every CUDA thread is a fiber; collectives meet in the runtime; accesses that go through the vocabulary are checked, and each
// check knows the line of the kernel that it is about. What is added here is added in kernels/device.cuh.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "emulator_module.h"
#include "shared_memory.h"

#if defined(STORAGE_F32) + defined(STORAGE_F16) + defined(STORAGE_BF16) > 1
#error "choose one storage type: -DSTORAGE_F32=1, -DSTORAGE_F16=1 or -DSTORAGE_BF16=1"
#endif
#if defined(STORAGE_BF16) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "bfloat16 needs compute capability 8.0 or newer: on this device use fp16 (-DSTORAGE_F16=1) or fp32 (-DSTORAGE_F32=1)"
#endif

#define __device__
#define __global__
#define __forceinline__ inline
#define DEVICE inline
#define KERNEL(max_threads, min_blocks) extern "C" void
#define SHARED(type, name, count)                                        \
    struct name##_place {                                                \
        enum : unsigned { bytes = unsigned(sizeof(type) * (count)) };    \
        enum : int { line = __LINE__ };                                  \
    };                                                                   \
    const SharedPtr<type> name = emurt::static_shared<type, name##_place>(emurt::Site::here())
#define DYNAMIC_SHARED(type, name) const SharedPtr<type> name = emurt::dynamic_shared<type>()

constexpr int WARP_SIZE = 32;

// ---- storage types -------------------------------------------------------------------------------------------------------------

struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };

#if defined(STORAGE_F32)
using storage = float;
#define TENSOR_CORES 0
#elif defined(STORAGE_F16)
using storage = f16;
#define TENSOR_CORES 1
#elif defined(STORAGE_BF16)
using storage = bf16;
#define TENSOR_CORES 1
#endif

DEVICE unsigned __float_as_uint(float x) { unsigned u; std::memcpy(&u, &x, 4); return u; }
DEVICE float __uint_as_float(unsigned u) { float x; std::memcpy(&x, &u, 4); return x; }
DEVICE int __float_as_int(float x) { return static_cast<int>(__float_as_uint(x)); }
DEVICE float __int_as_float(int i) { return __uint_as_float(static_cast<unsigned>(i)); }

namespace emurt {

// Without F16C: by integers. Exact for every input; round to nearest even; NaN becomes 0x7fff as on the device.
inline float f16_to_float(unsigned h) {
    const unsigned sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ffu;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0) return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
    const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -magnitude : magnitude;
}
inline unsigned float_to_f16(float x) {
    const unsigned u = __float_as_uint(x), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return 0x7fffu;
    if (a >= 0x477ff000u) return sign | 0x7c00u;  // 65520 and above round to infinity
    if (a < 0x38800000u) {                         // below the smallest normal: adding 0.5 leaves the rounded mantissa in the low bits
        return sign | (__float_as_uint(__uint_as_float(a) + 0.5f) - 0x3f000000u);
    }
    return sign | ((a + 0xfffu + (a >> 13 & 1u) - (112u << 23)) >> 13);
}

}  // namespace emurt

DEVICE float to_float(float v) { return v; }
DEVICE float to_float(bf16 v) { return __uint_as_float(static_cast<unsigned>(v.bits) << 16); }
DEVICE float to_float(f16 v) {
#if defined(__F16C__)
    return _cvtsh_ss(v.bits);
#else
    return emurt::f16_to_float(v.bits);
#endif
}

template <class T> T from_float(float x);
template <> DEVICE float from_float<float>(float x) { return x; }
template <> DEVICE f16 from_float<f16>(float x) {
#if defined(__F16C__)
    return {static_cast<unsigned short>(x != x ? 0x7fff : _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT))};
#else
    return {static_cast<unsigned short>(emurt::float_to_f16(x))};
#endif
}
template <> DEVICE bf16 from_float<bf16>(float x) {
    const unsigned u = __float_as_uint(x);
    return {static_cast<unsigned short>(x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1u)) >> 16)};
}

// Two floats in one register of two T, lo in the lower half.
template <class T> DEVICE unsigned pack2(float lo, float hi) {
    static_assert(sizeof(T) == 2, "pack2 is for f16 and bf16");
    return static_cast<unsigned>(from_float<T>(lo).bits) | static_cast<unsigned>(from_float<T>(hi).bits) << 16;
}

DEVICE unsigned prmt(unsigned a, unsigned b, unsigned selector) {
    const unsigned long long both = static_cast<unsigned long long>(b) << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; ++i) r |= static_cast<unsigned>(both >> (8 * (selector >> (4 * i) & 7u)) & 0xffu) << (8 * i);
    return r;
}

// ---- 16 bytes at a time --------------------------------------------------------------------------------------------------------

template <class T> struct alignas(16) Pack {
    static constexpr int size = 16 / int(sizeof(T));
    unsigned words[4];

    DEVICE float get(int i) const {
        T v;
        std::memcpy(&v, reinterpret_cast<const char*>(words) + i * sizeof(T), sizeof(T));
        return to_float(v);
    }
    DEVICE void set(int i, float x) {
        const T v = from_float<T>(x);
        std::memcpy(reinterpret_cast<char*>(words) + i * sizeof(T), &v, sizeof(T));
    }
    DEVICE void set2(int i, float lo, float hi) { set(i, lo), set(i + 1, hi); }
};

namespace emurt {

template <class T> EMURT_INLINE void check_global16(const T* p, bool write, Site site) {
    const uintptr_t a = reinterpret_cast<uintptr_t>(p);
    const Block& b = block();
    if (__builtin_expect(a % 16 != 0, 0))
        fail(&self(), Finding::GlobalAlignment, site, "16-byte access to global memory at %p, not a multiple of 16", static_cast<const void*>(p));
    if (!b.check_global) return;
    for (const Range& range : b.ranges)
        if (a - range.low < range.room16) return;
    global_access(&self(), p, 16, write, site);
}
template <class T> EMURT_INLINE void check_shared16(const SharedPtr<T>& p, Site site) {
    check_bounds(p.address(), p.low(), p.high(), sizeof(T), 16, site);
    check_vector_alignment(p.address(), site);
}

}  // namespace emurt

template <class T> EMURT_INLINE Pack<T> load16(const T* p, emurt::Site site = emurt::Site::here()) {
    emurt::check_global16(p, false, site);
    Pack<T> v;
    std::memcpy(v.words, p, 16);
    return v;
}
template <class T> EMURT_INLINE Pack<T> load16_stream(const T* p, emurt::Site site = emurt::Site::here()) { return load16(p, site); }
template <class T> EMURT_INLINE void store16(T* p, const Pack<T>& v, emurt::Site site = emurt::Site::here()) {
    emurt::check_global16(p, true, site);
    std::memcpy(p, v.words, 16);
}
template <class T> EMURT_INLINE Pack<std::remove_const_t<T>> load16(SharedPtr<T> p, emurt::Site site = emurt::Site::here()) {
    emurt::check_shared16(p, site);
    emurt::note_read<16>(p.address(), site);
    Pack<std::remove_const_t<T>> v;
    std::memcpy(v.words, p.raw(), 16);
    return v;
}
template <class T> EMURT_INLINE void store16(SharedPtr<T> p, const Pack<T>& v, emurt::Site site = emurt::Site::here()) {
    emurt::check_shared16(p, site);
    emurt::note_write<16>(p.address(), site);
    std::memcpy(p.raw(), v.words, 16);
}

// ---- threads, warps, blocks ----------------------------------------------------------------------------------------------------

#define threadIdx (emurt::self().thread_index)
#define blockIdx (emurt::block().block_index)
#define blockDim (emurt::block().block_dim)
#define gridDim (emurt::block().grid_dim)

namespace emurt {
inline Thread& one_dimensional(Site site) {
    Thread& t = self();
    const Block& b = block();
    if (__builtin_expect(b.block_dim.x != b.thread_count, 0)) fail(&t, Finding::Arguments, site, "lane_id and warp_id are for one-dimensional blocks");
    return t;
}
}  // namespace emurt

DEVICE int lane_id(emurt::Site site = emurt::Site::here()) { return static_cast<int>(emurt::one_dimensional(site).lane); }
DEVICE int warp_id(emurt::Site site = emurt::Site::here()) { return static_cast<int>(emurt::one_dimensional(site).linear / 32); }

DEVICE void sync_block(emurt::Site site = emurt::Site::here()) { emurt::sync_block(&emurt::self(), site); }
DEVICE void sync_warp(emurt::Site site = emurt::Site::here()) { emurt::collective(&emurt::self(), emurt::Collective::SyncWarp, site); }

namespace emurt {

// One meeting of the warp: every lane leaves its value, and takes another's when all have come.
template <class T> EMURT_INLINE T exchange(T v, int own_or_source(int lane, int n), int n, Site site) {
    static_assert(sizeof(T) == 4, "shuffles move float, int and unsigned");
    Thread& t = self();
    Warp& w = *t.warp;
    uint64_t(&slots)[32] = w.slots[w.parity];
    std::memcpy(&slots[t.lane], &v, 4);
    collective(&t, Collective::Shuffle, site);
    std::memcpy(&v, &slots[own_or_source(static_cast<int>(t.lane), n)], 4);
    return v;
}
EMURT_INLINE int source_xor(int lane, int n) { return static_cast<unsigned>(n) < 32 ? lane ^ n : lane; }
EMURT_INLINE int source_down(int lane, int n) { return static_cast<unsigned>(n) < 32u - static_cast<unsigned>(lane) ? lane + n : lane; }
EMURT_INLINE int source_up(int lane, int n) { return static_cast<unsigned>(n) <= static_cast<unsigned>(lane) ? lane - n : lane; }
EMURT_INLINE int source_idx(int, int n) { return n & 31; }

inline unsigned vote(bool p, Site site) {
    Thread& t = self();
    Warp& w = *t.warp;
    const unsigned parity = w.parity;
    w.slots[parity][t.lane] = p;
    collective(&t, Collective::Ballot, site);
    return static_cast<unsigned>(w.results[parity]);
}
inline float reduce(float x, Collective kind, Site site) {
    Thread& t = self();
    Warp& w = *t.warp;
    const unsigned parity = w.parity;
    w.slots[parity][t.lane] = __float_as_uint(x);
    collective(&t, kind, site);
    return __uint_as_float(static_cast<unsigned>(w.results[parity]));
}

}  // namespace emurt

#define EMURT_SHUFFLE(T)                                                                                                            \
    DEVICE T shfl_xor(T v, int m, emurt::Site s = emurt::Site::here()) { return emurt::exchange(v, emurt::source_xor, m, s); }      \
    DEVICE T shfl_down(T v, int n, emurt::Site s = emurt::Site::here()) { return emurt::exchange(v, emurt::source_down, n, s); }    \
    DEVICE T shfl_up(T v, int n, emurt::Site s = emurt::Site::here()) { return emurt::exchange(v, emurt::source_up, n, s); }        \
    DEVICE T shfl_idx(T v, int i, emurt::Site s = emurt::Site::here()) { return emurt::exchange(v, emurt::source_idx, i, s); }
EMURT_SHUFFLE(float)
EMURT_SHUFFLE(int)
EMURT_SHUFFLE(unsigned)
#undef EMURT_SHUFFLE

DEVICE unsigned ballot(bool p, emurt::Site site = emurt::Site::here()) { return emurt::vote(p, site); }
DEVICE bool any(bool p, emurt::Site site = emurt::Site::here()) { return emurt::vote(p, site) != 0; }
DEVICE bool all(bool p, emurt::Site site = emurt::Site::here()) { return emurt::vote(p, site) == 0xffffffffu; }

// The runtime adds in the order of the device's butterfly: the same bits.
DEVICE float warp_sum(float x, emurt::Site site = emurt::Site::here()) { return emurt::reduce(x, emurt::Collective::Sum, site); }
DEVICE float warp_max(float x, emurt::Site site = emurt::Site::here()) { return emurt::reduce(x, emurt::Collective::Max, site); }

namespace emurt {
inline float block_reduce(float x, float neutral, const SharedPtr<float>& scratch, Collective kind, Site site) {
    const int lane = lane_id(site), warp = warp_id(site);
    x = reduce(x, kind, site);
    if (lane == 0) scratch[{warp, site}] = x;
    sync_block(&self(), site);
    if (warp == 0) {
        x = lane * WARP_SIZE < static_cast<int>(blockDim.x) ? float(scratch[{lane, site}]) : neutral;
        x = reduce(x, kind, site);
        if (lane == 0) scratch[{32, site}] = x;
    }
    sync_block(&self(), site);
    return scratch[{32, site}];
}
}  // namespace emurt

DEVICE float block_sum(float x, SharedPtr<float> scratch, emurt::Site site = emurt::Site::here()) {
    return emurt::block_reduce(x, 0.0f, scratch, emurt::Collective::Sum, site);
}
DEVICE float block_max(float x, SharedPtr<float> scratch, emurt::Site site = emurt::Site::here()) {
    return emurt::block_reduce(x, -INFINITY, scratch, emurt::Collective::Max, site);
}

// Blocks run on several OS threads, so global atomics are real ones.
template <class T> DEVICE T atomic_add(T* p, T x) {
    if constexpr (std::is_integral<T>::value) return __atomic_fetch_add(p, x, __ATOMIC_RELAXED);
    else {
        unsigned* const u = reinterpret_cast<unsigned*>(p);
        unsigned old = __atomic_load_n(u, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(u, &old, __float_as_uint(__uint_as_float(old) + x), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        }
        return __uint_as_float(old);
    }
}
template <class T> DEVICE T atomic_add(SharedPtr<T> p, T x, emurt::Site site = emurt::Site::here()) {
    emurt::check_bounds(p.address(), p.low(), p.high(), sizeof(T), sizeof(T), site);
    if (emurt::block().check_shared) emurt::shared_write(&emurt::self(), p.raw(), sizeof(T), true, site);
    const T old = *p.raw();
    *p.raw() = static_cast<T>(old + x);
    return old;
}

// ---- asynchronous copies -------------------------------------------------------------------------------------------------------

// Queued here and made at the wait that covers it; until then the destination is NaN and must not be touched.
template <class T> DEVICE void cp_async16(SharedPtr<T> shared, const T* global, bool valid, emurt::Site site = emurt::Site::here()) {
    emurt::check_shared16(shared, site);
    if (valid) emurt::check_global16(global, false, site);
    emurt::async_copy(&emurt::self(), shared.raw(), valid ? global : nullptr, site);
}
DEVICE void cp_async_commit() { ++emurt::self().async_group; }
template <int pending> DEVICE void cp_async_wait(emurt::Site site = emurt::Site::here()) {
    emurt::Thread& t = emurt::self();
    if (t.async_first != t.async_end) emurt::async_wait(&t, pending, site);
}

// ---- tensor cores --------------------------------------------------------------------------------------------------------------

namespace emurt {
template <class T> EMURT_INLINE void ldmatrix(unsigned* r, const SharedPtr<T>& p, Collective kind, unsigned rows, Site site) {
    static_assert(sizeof(T) == 2, "ldmatrix is for 16-bit elements");
    Thread& t = self();
    Warp& w = *t.warp;
    if (t.lane < rows) {
        check_shared16(p, site);
        note_read<16>(p.address(), site);
    }
    const LdmatrixOperands operands{r, p.raw()};
    w.slots[w.parity][t.lane] = reinterpret_cast<uintptr_t>(&operands);
    collective(&t, kind, site);
}
}  // namespace emurt

#define EMURT_LDMATRIX(name, kind, rows)                                                                            \
    template <class T> DEVICE void name(unsigned* r, SharedPtr<T> p, emurt::Site site = emurt::Site::here()) {      \
        emurt::ldmatrix(r, p, emurt::Collective::kind, rows, site);                                                 \
    }
EMURT_LDMATRIX(ldmatrix_x4, LdmatrixX4, 32)
EMURT_LDMATRIX(ldmatrix_x4_trans, LdmatrixX4Trans, 32)
EMURT_LDMATRIX(ldmatrix_x2, LdmatrixX2, 16)
EMURT_LDMATRIX(ldmatrix_x2_trans, LdmatrixX2Trans, 16)
#undef EMURT_LDMATRIX

template <class T> DEVICE void mma_m16n8k16(float* c, const unsigned* a, const unsigned* b, emurt::Site site = emurt::Site::here()) {
    static_assert(std::is_same<T, f16>::value || std::is_same<T, bf16>::value, "mma_m16n8k16 is for f16 and bf16");
    emurt::Thread& t = emurt::self();
    emurt::Warp& w = *t.warp;
    const emurt::MmaOperands operands{c, a, b};
    w.slots[w.parity][t.lane] = reinterpret_cast<uintptr_t>(&operands);
    emurt::collective(&t, std::is_same<T, f16>::value ? emurt::Collective::MmaF16 : emurt::Collective::MmaBf16, site);
}

// ---- approximations, launch control, CUDA's own functions ----------------------------------------------------------------------

namespace emurt {
inline float flush(float x) { return std::fabs(x) < FLT_MIN ? std::copysign(0.0f, x) : x; }
}  // namespace emurt

DEVICE float fast_exp2(float x) { return emurt::flush(exp2f(emurt::flush(x))); }
DEVICE float fast_rcp(float x) { return emurt::flush(1.0f / emurt::flush(x)); }
DEVICE float rsqrtf(float x) { return 1.0f / sqrtf(x); }
DEVICE float __fmul_rn(float a, float b) { volatile float r = a * b; return r; }  // never fused with an addition
DEVICE float __fadd_rn(float a, float b) { volatile float r = a + b; return r; }
DEVICE float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE float __expf(float x) { return expf(x); }
DEVICE float __logf(float x) { return logf(x); }
DEVICE float __fdividef(float a, float b) { return a / b; }
DEVICE float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
DEVICE int __popc(unsigned x) { return __builtin_popcount(x); }
DEVICE int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
DEVICE int __ffs(int x) { return __builtin_ffs(x); }
DEVICE unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
DEVICE unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; ++i) r |= (x >> i & 1u) << (31 - i);
    return r;
}

#define EMURT_MINMAX(T)                                    \
    DEVICE T min(T a, T b) { return b < a ? b : a; }       \
    DEVICE T max(T a, T b) { return a < b ? b : a; }
EMURT_MINMAX(int)
EMURT_MINMAX(unsigned)
EMURT_MINMAX(long long)
EMURT_MINMAX(unsigned long long)
#undef EMURT_MINMAX
DEVICE float min(float a, float b) { return fminf(a, b); }
DEVICE float max(float a, float b) { return fmaxf(a, b); }

DEVICE void pdl_wait() {}
DEVICE void pdl_launch() {}
