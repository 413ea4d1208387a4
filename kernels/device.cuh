// The kernels' vocabulary on a real GPU: everything that a .cu file may use beyond plain C++17, for NVRTC alone (no CUDA header).
//
// All inline PTX of the project lives here. The emulated device has the same names in plain C++ (emulator/include/device.cuh):
// what is added here is added there. kernels/README.md is the contract between the two.
//
// Architectures: sm_75 (fp16 and fp32 storage; asynchronous copies become plain ones and a k16 product two k8 products), sm_80
// and up (everything), sm_90 and up (programmatic dependent launch).
#pragma once

#if defined(STORAGE_F32) + defined(STORAGE_F16) + defined(STORAGE_BF16) > 1
#error "choose one storage type: -DSTORAGE_F32=1, -DSTORAGE_F16=1 or -DSTORAGE_BF16=1"
#endif
#if defined(STORAGE_BF16) && __CUDA_ARCH__ < 800
#error "bfloat16 needs compute capability 8.0 or newer: on this device use fp16 (-DSTORAGE_F16=1) or fp32 (-DSTORAGE_F32=1)"
#endif

#define DEVICE __device__ __forceinline__
#define KERNEL(max_threads, min_blocks) extern "C" __global__ void __launch_bounds__(max_threads, min_blocks)
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define DYNAMIC_SHARED(type, name)                                    \
    extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
    SharedPtr<type> const name = reinterpret_cast<type*>(dynamic_shared)

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

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

DEVICE float to_float(float v) { return v; }
DEVICE float to_float(bf16 v) { return __uint_as_float(unsigned(v.bits) << 16); }
DEVICE float to_float(f16 v) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(v.bits));
    return x;
}

template <class T> DEVICE T from_float(float x);
template <> DEVICE float from_float<float>(float x) { return x; }
template <> DEVICE f16 from_float<f16>(float x) {
    f16 v;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v.bits) : "f"(x));
    return v;
}

// Two floats in one register of two T, lo in the lower half.
template <class T> DEVICE unsigned pack2(float lo, float hi);
#if __CUDA_ARCH__ >= 800
template <> DEVICE bf16 from_float<bf16>(float x) {
    bf16 v;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(v.bits) : "f"(x));
    return v;
}
template <> DEVICE unsigned pack2<f16>(float lo, float hi) {
    unsigned r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
template <> DEVICE unsigned pack2<bf16>(float lo, float hi) {
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
#else
template <> DEVICE unsigned pack2<f16>(float lo, float hi) {
    return unsigned(from_float<f16>(lo).bits) | unsigned(from_float<f16>(hi).bits) << 16;
}
#endif

// Four bytes out of the eight of a (0 .. 3) and b (4 .. 7): byte i is the one that digit i of the selector, counted from the lowest, names.
DEVICE unsigned prmt(unsigned a, unsigned b, unsigned selector) { return __byte_perm(a, b, selector); }

// ---- 16 bytes at a time --------------------------------------------------------------------------------------------------------

// 16 bytes of T. `words` are the same bytes as four registers, the form that mma takes. In unrolled code ptxas makes one packing
// conversion of two neighbouring `set`s, as of one set2; of a get it makes a conversion that picks its half.
template <class T> struct alignas(16) Pack {
    static constexpr int size = 16 / int(sizeof(T));
    unsigned words[4];

    DEVICE float get(int i) const {
        const unsigned w = words[i / 2];
        if constexpr (sizeof(T) == 4) return __uint_as_float(words[i]);
        else return to_float(T{static_cast<unsigned short>(i % 2 ? w >> 16 : w & 0xffffu)});
    }
    DEVICE void set(int i, float x) {
        if constexpr (sizeof(T) == 4) words[i] = __float_as_uint(x);
        else {
            const unsigned bits = from_float<T>(x).bits, w = words[i / 2];
            words[i / 2] = i % 2 ? (w & 0xffffu) | bits << 16 : (w & 0xffff0000u) | bits;
        }
    }
    // Elements i and i + 1; i is even.
    DEVICE void set2(int i, float lo, float hi) {
        if constexpr (sizeof(T) == 4) words[i] = __float_as_uint(lo), words[i + 1] = __float_as_uint(hi);
        else words[i / 2] = pack2<T>(lo, hi);
    }
};

// Shared memory is a plain pointer here and a checked one on the emulated device: write SharedPtr<T>, never T*, for it, and
// `T x = p[i]`, never `auto`.
template <class T> using SharedPtr = T*;
template <class U, class T> DEVICE SharedPtr<U> shared_cast(T* p) { return reinterpret_cast<U*>(p); }

template <class T> DEVICE Pack<T> load16(const T* p) {
    const uint4 q = *reinterpret_cast<const uint4*>(p);
    return {{q.x, q.y, q.z, q.w}};
}
// Global memory that this launch only reads, and reads once.
template <class T> DEVICE Pack<T> load16_stream(const T* p) {
    Pack<T> v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.words[0]), "=r"(v.words[1]), "=r"(v.words[2]), "=r"(v.words[3])
        : "l"(p));
    return v;
}
template <class T> DEVICE void store16(T* p, const Pack<T>& v) {
    *reinterpret_cast<uint4*>(p) = make_uint4(v.words[0], v.words[1], v.words[2], v.words[3]);
}

// ---- threads, warps, blocks ----------------------------------------------------------------------------------------------------

// Blocks are one-dimensional, and whole warps.
DEVICE int lane_id() { return int(threadIdx.x % WARP_SIZE); }
DEVICE int warp_id() { return int(threadIdx.x / WARP_SIZE); }

DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }

// Whole-warp exchanges of float, int and unsigned. A lane past the warp's end answers with the asking lane's own value.
template <class T> DEVICE T shfl_xor(T v, int lane_mask) { return __shfl_xor_sync(0xffffffffu, v, lane_mask); }
template <class T> DEVICE T shfl_down(T v, int n) { return __shfl_down_sync(0xffffffffu, v, unsigned(n)); }
template <class T> DEVICE T shfl_up(T v, int n) { return __shfl_up_sync(0xffffffffu, v, unsigned(n)); }
template <class T> DEVICE T shfl_idx(T v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }

DEVICE unsigned ballot(bool p) { return __ballot_sync(0xffffffffu, p); }
DEVICE bool any(bool p) { return __any_sync(0xffffffffu, p); }
DEVICE bool all(bool p) { return __all_sync(0xffffffffu, p); }

// The butterfly gives every lane the same bits.
DEVICE float warp_sum(float x) {
#pragma unroll
    for (int mask = WARP_SIZE / 2; mask > 0; mask /= 2) x += shfl_xor(x, mask);
    return x;
}
DEVICE float warp_max(float x) {
#pragma unroll
    for (int mask = WARP_SIZE / 2; mask > 0; mask /= 2) x = fmaxf(x, shfl_xor(x, mask));
    return x;
}

// One value a warp in scratch[0 .. 31], the block's in scratch[32]. Two barriers: the next call may use the same scratch, since
// nobody passes its first barrier before everybody has read scratch[32].
template <class Combine> DEVICE float block_reduce(float x, float neutral, SharedPtr<float> scratch, Combine combine) {
    x = combine(x);
    if (lane_id() == 0) scratch[warp_id()] = x;
    sync_block();
    if (warp_id() == 0) {
        x = combine(lane_id() * WARP_SIZE < int(blockDim.x) ? scratch[lane_id()] : neutral);
        if (lane_id() == 0) scratch[32] = x;
    }
    sync_block();
    return scratch[32];
}
DEVICE float block_sum(float x, SharedPtr<float> scratch) {
    return block_reduce(x, 0.0f, scratch, [](float v) { return warp_sum(v); });
}
DEVICE float block_max(float x, SharedPtr<float> scratch) {
    return block_reduce(x, -INFINITY, scratch, [](float v) { return warp_max(v); });
}

template <class T> DEVICE T atomic_add(T* p, T x) { return atomicAdd(p, x); }

// ---- asynchronous copies -------------------------------------------------------------------------------------------------------

// 16 bytes from global to shared memory past the L1 cache; zeros where valid is false (the address is then not read).
template <class T> DEVICE void cp_async16(T* shared, const T* global, bool valid) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(unsigned(__cvta_generic_to_shared(shared))), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
#else
    store16(shared, valid ? load16(global) : Pack<T>{{0, 0, 0, 0}});
#endif
}
DEVICE void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most `pending` of this thread's committed groups are under way. Other threads' copies need a barrier after it.
template <int pending> DEVICE void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

// ---- tensor cores --------------------------------------------------------------------------------------------------------------

// 8x8 matrices of 16-bit elements. Lane i gives the address of row i % 8 of matrix i / 8 (16-byte aligned; x2: lanes 0 .. 15
// count, the others give any valid address). Lane i receives elements (i / 4, 2 * (i % 4)) and the next; _trans: of the transpose.
#define LDMATRIX_X4(name, form)                                                                             \
    template <class T> DEVICE void name(unsigned* r, const T* p) {                                          \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" form ".shared.b16 {%0, %1, %2, %3}, [%4];"             \
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                                       \
                     : "r"(unsigned(__cvta_generic_to_shared(p)))                                           \
                     : "memory");                                                                           \
    }
#define LDMATRIX_X2(name, form)                                                                             \
    template <class T> DEVICE void name(unsigned* r, const T* p) {                                          \
        asm volatile("ldmatrix.sync.aligned.m8n8.x2" form ".shared.b16 {%0, %1}, [%2];"                     \
                     : "=r"(r[0]), "=r"(r[1])                                                               \
                     : "r"(unsigned(__cvta_generic_to_shared(p)))                                           \
                     : "memory");                                                                           \
    }
LDMATRIX_X4(ldmatrix_x4, "")
LDMATRIX_X4(ldmatrix_x4_trans, ".trans")
LDMATRIX_X2(ldmatrix_x2, "")
LDMATRIX_X2(ldmatrix_x2_trans, ".trans")

// c[16 x 8] += a[16 x 16] * b[16 x 8], fp32 accumulation. With g = lane / 4 and t = lane % 4:
//   a[0], a[1]: rows g, g + 8, columns 2t, 2t + 1; a[2], a[3]: the same rows, columns 2t + 8, 2t + 9
//   b[0], b[1]: rows 2t, 2t + 1 and 2t + 8, 2t + 9 of column g
//   c[0], c[1]: row g, columns 2t, 2t + 1; c[2], c[3]: row g + 8
template <class T> DEVICE void mma_m16n8k16(float* c, const unsigned* a, const unsigned* b);
#if __CUDA_ARCH__ >= 800
#define MMA_M16N8K16(T, type)                                                                               \
    template <> DEVICE void mma_m16n8k16<T>(float* c, const unsigned* a, const unsigned* b) {               \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "                                  \
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                               \
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                            \
    }
MMA_M16N8K16(f16, "f16")
MMA_M16N8K16(bf16, "bf16")
#else
template <> DEVICE void mma_m16n8k16<f16>(float* c, const unsigned* a, const unsigned* b) {
    for (int k = 0; k < 2; ++k)
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
}
#endif

// ---- approximations and launch control -----------------------------------------------------------------------------------------

DEVICE float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float fast_rcp(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Until the previous kernel of the stream has finished and its writes are visible: before the first access to anything it wrote.
DEVICE void pdl_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel start its prologue; its pdl_wait still waits for this one's end.
DEVICE void pdl_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
