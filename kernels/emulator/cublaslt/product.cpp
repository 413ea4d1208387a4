// Packing to fp32, the inner kernels, the epilogue.
#include "product.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace emu {

int element_size(cudaDataType type) {
    switch (type) {
        case CUDA_R_32F: return 4;
        case CUDA_R_16F:
        case CUDA_R_16BF: return 2;
        default: return 0;
    }
}

// ---- numbers ---------------------------------------------------------------------------------------------------------------------

static inline uint32_t bits_of(float x) { uint32_t u; std::memcpy(&u, &x, 4); return u; }
static inline float float_of(uint32_t u) { float x; std::memcpy(&x, &u, 4); return x; }

// Without branches, so that loops over it become vector code: the exponent moves by a multiplication, which also makes
// subnormals right; infinities and NaN keep theirs.
static inline float from_f16(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000u) << 16, magnitude = uint32_t(h & 0x7fffu) << 13;
    const uint32_t finite = bits_of(float_of(magnitude) * float_of(0x77800000u));  // 2^112
    return float_of(sign | (magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite));
}
static inline float from_bf16(uint16_t h) { return float_of(uint32_t(h) << 16); }

static inline uint16_t to_f16(float x) {
    const uint32_t u = bits_of(x), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return 0x7fff;
    if (a >= 0x477ff000u) return uint16_t(sign | 0x7c00u);
    if (a < 0x38800000u) return uint16_t(sign | (bits_of(float_of(a) + 0.5f) - 0x3f000000u));  // the sum rounds to the subnormal grid
    return uint16_t(sign | ((a + 0xfffu + (a >> 13 & 1u) - (112u << 23)) >> 13));
}
static inline uint16_t to_bf16(float x) {
    const uint32_t u = bits_of(x);
    return x != x ? uint16_t(0x7fff) : uint16_t((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
static inline float to_tf32(float x) {
    const uint32_t u = bits_of(x);
    return (u & 0x7f800000u) == 0x7f800000u ? x : float_of((u + 0xfffu + (u >> 13 & 1u)) & 0xffffe000u);
}

static inline float load(const void* data, cudaDataType type, int64_t index) {
    switch (type) {
        case CUDA_R_16F: return from_f16(static_cast<const uint16_t*>(data)[index]);
        case CUDA_R_16BF: return from_bf16(static_cast<const uint16_t*>(data)[index]);
        default: return static_cast<const float*>(data)[index];
    }
}
static inline void store(void* data, cudaDataType type, int64_t index, float x) {
    switch (type) {
        case CUDA_R_16F: static_cast<uint16_t*>(data)[index] = to_f16(x); break;
        case CUDA_R_16BF: static_cast<uint16_t*>(data)[index] = to_bf16(x); break;
        default: static_cast<float*>(data)[index] = x; break;
    }
}

// ---- kernels ---------------------------------------------------------------------------------------------------------------------

#if defined(__x86_64__)
#define WIDE __attribute__((target("avx512f,fma")))
#define MIDDLE __attribute__((target("avx2,fma")))
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#if defined(EMULATOR_SANITIZE) || defined(__clang__)
#undef CLONES
#define CLONES
#endif

// Contiguous elements to fp32.
CLONES static void widen(const void* data, cudaDataType type, int64_t count, float* out) {
    if (type == CUDA_R_16F) {
        const uint16_t* p = static_cast<const uint16_t*>(data);
        for (int64_t i = 0; i < count; ++i) out[i] = from_f16(p[i]);
    } else if (type == CUDA_R_16BF) {
        const uint16_t* p = static_cast<const uint16_t*>(data);
        for (int64_t i = 0; i < count; ++i) out[i] = from_bf16(p[i]);
    } else std::memcpy(out, data, size_t(count) * 4);
}

// tile[column][row] of ROWS rows and COLUMNS columns = sum over k of a[k][row] * b[k][column], panels packed that way. Rows are
// vectors; the whole sum stays in registers.
#define TILE_KERNEL(name, attribute, WIDTH, VECTORS, COLUMNS)                                                            \
    attribute static void name(const float* a, const float* b, int64_t depth, float* tile) {                            \
        typedef float Vector __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));                             \
        Vector sum[COLUMNS][VECTORS] = {};                                                                               \
        for (int64_t k = 0; k < depth; ++k, a += WIDTH * VECTORS, b += COLUMNS) {                                        \
            Vector left[VECTORS];                                                                                        \
            for (int v = 0; v < VECTORS; ++v) left[v] = *reinterpret_cast<const Vector*>(a + v * WIDTH);                 \
            for (int c = 0; c < COLUMNS; ++c)                                                                            \
                for (int v = 0; v < VECTORS; ++v) sum[c][v] += left[v] * b[c];                                           \
        }                                                                                                                \
        for (int c = 0; c < COLUMNS; ++c)                                                                                \
            for (int v = 0; v < VECTORS; ++v) *reinterpret_cast<Vector*>(tile + (c * VECTORS + v) * WIDTH) = sum[c][v];  \
    }

struct TileKernel {
    void (*run)(const float*, const float*, int64_t, float*);
    int rows, columns;
};

#if defined(__x86_64__)
TILE_KERNEL(tile_512, WIDE, 16, 2, 12)
TILE_KERNEL(tile_256, MIDDLE, 8, 2, 6)
#endif
TILE_KERNEL(tile_128, , 4, 2, 4)

// Sums of products of one line with several, all contiguous and padded with zeros to a multiple of 16.
CLONES static void dot_lines(const float* line, const float* others, int count, int64_t padded, float* sums) {
    typedef float Vector __attribute__((vector_size(64), aligned(4), may_alias));
    for (int j = 0; j < count; ++j, others += padded) {
        Vector sum[2] = {};
        int64_t k = 0;
        for (; k + 32 <= padded; k += 32)
            for (int v = 0; v < 2; ++v) sum[v] += *reinterpret_cast<const Vector*>(line + k + 16 * v) * *reinterpret_cast<const Vector*>(others + k + 16 * v);
        if (k < padded) sum[0] += *reinterpret_cast<const Vector*>(line + k) * *reinterpret_cast<const Vector*>(others + k);
        sum[0] += sum[1];
        float total = 0;
        for (int i = 0; i < 16; ++i) total += sum[0][i];
        sums[j] = total;
    }
}

static TileKernel choose_kernel() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return {tile_512, 32, 12};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {tile_256, 16, 6};
#endif
    return {tile_128, 8, 4};
}

// ---- packing ---------------------------------------------------------------------------------------------------------------------

// An operand as lines along k: element (line, k) of the product's view.
struct Operand {
    const void* data;
    cudaDataType type;
    int64_t line_stride, depth_stride;
    Rounding rounding;
};

static void round_operand(float* values, int64_t count, Rounding rounding) {
    if (rounding == Rounding::tf32) for (int64_t i = 0; i < count; ++i) values[i] = to_tf32(values[i]);
    if (rounding == Rounding::f16) for (int64_t i = 0; i < count; ++i) values[i] = from_f16(to_f16(values[i]));
    if (rounding == Rounding::bf16) for (int64_t i = 0; i < count; ++i) values[i] = from_bf16(to_bf16(values[i]));
}

// Lines first .. first + count as panel[k][width]; missing lines are zeros.
static void pack_panel(const Operand& operand, int64_t first, int64_t count, int width, int64_t depth, float* panel, std::vector<float>& line) {
    line.resize(64);
    const int size = element_size(operand.type);
    const auto at = [&operand, size](int64_t index) { return static_cast<const char*>(operand.data) + index * size; };
    if (count < width) std::fill(panel, panel + depth * width, 0.0f);
    if (operand.line_stride == 1 && operand.depth_stride != 1) {
        for (int64_t k = 0; k < depth; ++k) widen(at(first + k * operand.depth_stride), operand.type, count, panel + k * width);
    } else {
        // In pieces of k, so that the part of the panel being written stays in the first cache.
        constexpr int64_t piece = 64;
        for (int64_t k0 = 0; k0 < depth; k0 += piece)
            for (int64_t l = 0; l < count; ++l) {
                const int64_t length = std::min(piece, depth - k0), start = (first + l) * operand.line_stride + k0 * operand.depth_stride;
                if (operand.depth_stride == 1) widen(at(start), operand.type, length, line.data());
                else for (int64_t k = 0; k < length; ++k) line[size_t(k)] = load(operand.data, operand.type, start + k * operand.depth_stride);
                float* const out = panel + k0 * width + l;
                for (int64_t k = 0; k < length; ++k) out[k * width] = line[size_t(k)];
            }
    }
    round_operand(panel, depth * width, operand.rounding);
}

static Operand operand_of(const Matrix& matrix, const void* data, bool lines_are_rows, int batch, Rounding rounding) {
    const int64_t row = matrix.row_major ? matrix.leading : 1, column = matrix.row_major ? 1 : matrix.leading;
    const char* start = static_cast<const char*>(data) + batch * matrix.batch_stride * element_size(matrix.type);
    const Rounding used = matrix.type == CUDA_R_32F ? rounding : Rounding::none;
    return lines_are_rows ? Operand{start, matrix.type, row, column, used} : Operand{start, matrix.type, column, row, used};
}

// ---- epilogue --------------------------------------------------------------------------------------------------------------------

static inline float gelu_tanh(float x) { return 0.5f * x * (1.0f + std::tanh(0.7978845608028654f * (x + 0.044715f * x * x * x))); }

static void finish_tile(const Product& p, int batch, const float* tile, int tile_rows, int64_t row0, int64_t rows, int64_t column0, int64_t columns) {
    const auto index = [batch](const Matrix& m, int64_t r, int64_t c) { return batch * m.batch_stride + (m.row_major ? r * m.leading + c : c * m.leading + r); };
    for (int64_t c = 0; c < columns; ++c)
        for (int64_t r = 0; r < rows; ++r) {
            float x = p.alpha * tile[c * tile_rows + r];
            if (p.beta != 0) x += p.beta * load(p.c_data, p.c.type, index(p.c, row0 + r, column0 + c));
            if (p.bias) x += load(p.bias_data, p.bias_type, batch * p.bias_batch_stride + row0 + r);
            if (p.relu) x = x > 0 ? x : x != x ? x : 0.0f;
            if (p.gelu) x = gelu_tanh(x);
            store(p.d_data, p.d.type, index(p.d, row0 + r, column0 + c), x);
        }
}

// ---- the product -----------------------------------------------------------------------------------------------------------------

template <class Body> static void in_threads(int threads, const Body& body) {
    std::vector<std::thread> helpers;
    for (int t = 1; t < threads; ++t) helpers.emplace_back(body);
    body();
    for (std::thread& helper : helpers) helper.join();
}

static void multiply_batch(const Product& p, int batch, const TileKernel& kernel, int threads) {
    const int64_t m = p.d.rows, n = p.d.columns, depth = p.transpose_a ? p.a.rows : p.a.columns;
    const Operand left = operand_of(p.a, p.a_data, !p.transpose_a, batch, p.rounding), right = operand_of(p.b, p.b_data, p.transpose_b, batch, p.rounding);
    // Columns of D in groups, so that a packed group of B stays small; within it, panels of rows go to whichever thread is free.
    const int64_t group = std::max<int64_t>(kernel.columns, int64_t(4 << 20) / std::max<int64_t>(depth, 1) / kernel.columns * kernel.columns);
    std::vector<float> packed_b, line;
    for (int64_t n0 = 0; n0 < n; n0 += group) {
        const int64_t columns = std::min(group, n - n0), panels = (columns + kernel.columns - 1) / kernel.columns;
        packed_b.resize(size_t(panels * kernel.columns * depth));
        for (int64_t j = 0; j < panels; ++j)
            pack_panel(right, n0 + j * kernel.columns, std::min<int64_t>(kernel.columns, columns - j * kernel.columns), kernel.columns, depth,
                       packed_b.data() + j * kernel.columns * depth, line);
        std::atomic<int64_t> next{0};
        const int64_t row_panels = (m + kernel.rows - 1) / kernel.rows;
        const auto work = [&] {
            std::vector<float> packed_a(size_t(kernel.rows * depth)), scratch, tile(size_t(kernel.rows) * size_t(kernel.columns));
            for (int64_t i; (i = next.fetch_add(1)) < row_panels;) {
                const int64_t row0 = i * kernel.rows, rows = std::min<int64_t>(kernel.rows, m - row0);
                pack_panel(left, row0, rows, kernel.rows, depth, packed_a.data(), scratch);
                for (int64_t j = 0; j < panels; ++j) {
                    kernel.run(packed_a.data(), packed_b.data() + j * kernel.columns * depth, depth, tile.data());
                    finish_tile(p, batch, tile.data(), kernel.rows, row0, rows, n0 + j * kernel.columns, std::min<int64_t>(kernel.columns, columns - j * kernel.columns));
                }
            }
        };
        in_threads(threads, work);
    }
}

// Few columns and lines contiguous along k, as in decoding: packing would cost more than the sums.
static bool multiply_few(const Product& p, int batch, int threads) {
    constexpr int most = 8;
    const int64_t m = p.d.rows, n = p.d.columns, depth = p.transpose_a ? p.a.rows : p.a.columns, padded = (depth + 15) / 16 * 16;
    const Operand left = operand_of(p.a, p.a_data, !p.transpose_a, batch, p.rounding), right = operand_of(p.b, p.b_data, p.transpose_b, batch, p.rounding);
    if (n > most || left.depth_stride != 1 || right.depth_stride != 1) return false;
    const auto read = [depth, padded](const Operand& operand, int64_t line, float* out) {
        widen(static_cast<const char*>(operand.data) + line * operand.line_stride * element_size(operand.type), operand.type, depth, out);
        round_operand(out, depth, operand.rounding);
        std::fill(out + depth, out + padded, 0.0f);
    };
    std::vector<float> columns(size_t(n * padded));
    for (int64_t j = 0; j < n; ++j) read(right, j, columns.data() + j * padded);
    std::atomic<int64_t> next{0};
    in_threads(threads, [&] {
        constexpr int64_t share = 64;
        std::vector<float> line(static_cast<size_t>(padded));
        float sums[most];
        for (int64_t first; (first = next.fetch_add(share)) < m;)
            for (int64_t i = first; i < std::min(m, first + share); ++i) {
                read(left, i, line.data());
                dot_lines(line.data(), columns.data(), int(n), padded, sums);
                finish_tile(p, batch, sums, 1, i, 1, 0, n);
            }
    });
    return true;
}

void multiply(const Product& product) {
    static const TileKernel kernel = choose_kernel();
    const double flops = 2.0 * double(product.d.rows) * double(product.d.columns) * double(product.transpose_a ? product.a.rows : product.a.columns);
    const int threads = flops < 4e6 ? 1 : int(std::min(8u, std::max(1u, std::thread::hardware_concurrency())));
    for (int batch = 0; batch < product.d.batches; ++batch)
        if (!multiply_few(product, batch, threads)) multiply_batch(product, batch, kernel, threads);
}

}  // namespace emu
