#include "check.h"

#include <chrono>
#include <cmath>

// Numbers by the slow and obvious way.
static double half_value(uint16_t h) {
    const int e = h >> 10 & 31, f = h & 1023;
    const double v = e == 31 ? (f ? NAN : INFINITY) : e ? std::ldexp(1024 + f, e - 25) : std::ldexp(f, -24);
    return h & 0x8000 ? -v : v;
}
static uint16_t to_bits(cudaDataType type, float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    if (type == CUDA_R_16BF) return uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
    uint16_t best = 0;  // values of the tests are small and exact
    for (uint32_t h = 0; h < 0x10000; ++h)
        if (half_value(uint16_t(h)) == double(x)) return uint16_t(h);
    return best;
}
static double value_of(cudaDataType type, const std::vector<char>& data, size_t i) {
    if (type == CUDA_R_32F) { float x; std::memcpy(&x, &data[i * 4], 4); return x; }
    uint16_t h;
    std::memcpy(&h, &data[i * 2], 2);
    if (type == CUDA_R_16F) return half_value(h);
    const uint32_t u = uint32_t(h) << 16;
    float x;
    std::memcpy(&x, &u, 4);
    return x;
}

struct Sides {
    int64_t m, n, k;
    cudaDataType input, output;
    bool transpose_a, transpose_b;
    unsigned epilogue;
    float alpha, beta;
    int64_t padding;
    int batches;
};

struct Held {
    CUdeviceptr address = 0;
    std::vector<char> bytes;
    cublasLtMatrixLayout_t layout = nullptr;
    int64_t leading = 0, stride = 0;
    cudaDataType type;

    Held(cudaDataType t, int64_t rows, int64_t columns, int64_t padding, int batches, uint32_t seed) : leading(rows + padding), type(t) {
        stride = leading * columns;
        const size_t size = type == CUDA_R_32F ? 4 : 2, count = size_t(stride * batches);
        bytes.resize(count * size);
        static uint16_t table[2][33];
        static bool filled = false;
        if (!filled)
            for (int i = 0; i <= 32; ++i) table[0][i] = to_bits(CUDA_R_16F, float(i - 16) / 16), table[1][i] = to_bits(CUDA_R_16BF, float(i - 16) / 16);
        filled = true;
        for (size_t i = 0; i < count; ++i) {
            seed = seed * 1664525 + 1013904223;
            const int step = int(seed >> 8) % 33;
            const float x = float(step - 16) / 16;
            if (size == 4) std::memcpy(&bytes[i * 4], &x, 4);
            else std::memcpy(&bytes[i * 2], &table[type == CUDA_R_16BF][step], 2);
        }
        address = allocate(bytes.size());
        OK(cuMemcpyHtoD_v2(address, bytes.data(), bytes.size()));
        OK(cublasLtMatrixLayoutCreate(&layout, type, uint64_t(rows), uint64_t(columns), leading));
        if (batches > 1) {
            OK(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batches, sizeof batches));
            OK(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride));
        }
    }
    ~Held() {
        OK(cublasLtMatrixLayoutDestroy(layout));
        OK(cuMemFree_v2(address));
    }
    double at(int64_t r, int64_t c, int batch = 0) const { return value_of(type, bytes, size_t(batch * stride + c * leading + r)); }
    void* pointer() const { return reinterpret_cast<void*>(uintptr_t(address)); }
};

static void test_product(cublasLtHandle_t handle, const Sides& s) {
    Held a(s.input, s.transpose_a ? s.k : s.m, s.transpose_a ? s.m : s.k, s.padding, s.batches, 1), b(s.input, s.transpose_b ? s.n : s.k, s.transpose_b ? s.k : s.n, s.padding, s.batches, 2);
    Held c(s.output, s.m, s.n, s.padding, s.batches, 3), d(s.output, s.m, s.n, s.padding, s.batches, 4), bias(s.output, s.m, 1, 0, 1, 5);
    const std::vector<char> before = d.bytes;
    cublasLtMatmulDesc_t desc = nullptr;
    OK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const int32_t ta = s.transpose_a, tb = s.transpose_b;
    OK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta));
    OK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb));
    OK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &s.epilogue, sizeof s.epilogue));
    const void* const bias_pointer = bias.pointer();
    OK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias_pointer, sizeof bias_pointer));
    OK(cublasLtMatmul(handle, desc, &s.alpha, a.pointer(), a.layout, b.pointer(), b.layout, &s.beta, c.pointer(), c.layout, d.pointer(), d.layout, nullptr, nullptr, 0, nullptr));
    OK(cuMemcpyDtoH_v2(d.bytes.data(), d.address, d.bytes.size()));
    const double unit = s.output == CUDA_R_32F ? 1e-6 : s.output == CUDA_R_16F ? 1.0 / 2048 : 1.0 / 256;
    double worst = 0;
    for (int batch = 0; batch < s.batches; ++batch)
        for (int64_t j = 0; j < s.n; ++j)
            for (int64_t i = 0; i < s.m; ++i) {
                double sum = 0, size = 0;
                for (int64_t k = 0; k < s.k; ++k) {
                    const double term = (s.transpose_a ? a.at(k, i, batch) : a.at(i, k, batch)) * (s.transpose_b ? b.at(j, k, batch) : b.at(k, j, batch));
                    sum += term;
                    size += std::fabs(term);
                }
                double want = double(s.alpha) * sum + (s.beta != 0 ? double(s.beta) * c.at(i, j, batch) : 0);
                if (s.epilogue & CUBLASLT_EPILOGUE_BIAS) want += bias.at(i, 0);
                if (s.epilogue & CUBLASLT_EPILOGUE_RELU) want = want > 0 ? want : 0;
                if (s.epilogue & CUBLASLT_EPILOGUE_GELU) want = 0.5 * want * (1 + std::tanh(0.7978845608028654 * (want + 0.044715 * want * want * want)));
                worst = std::max(worst, std::fabs(d.at(i, j, batch) - want) / (1e-6 * size + unit * (std::fabs(want) + 1e-3)));
            }
    EXPECT_TRUE(worst <= 1.01);
    if (s.padding > 0) EXPECT_TRUE(std::memcmp(&before[size_t(s.m) * (s.output == CUDA_R_32F ? 4 : 2)], &d.bytes[size_t(s.m) * (s.output == CUDA_R_32F ? 4 : 2)], 2) == 0);
    OK(cublasLtMatmulDescDestroy(desc));
}

static void test_refusals(cublasLtHandle_t handle) {
    const Sides s{64, 32, 48, CUDA_R_16F, CUDA_R_16F, true, false, CUBLASLT_EPILOGUE_DEFAULT, 1, 0, 0, 1};
    Held a(s.input, s.k, s.m, 0, 1, 1), b(s.input, s.k, s.n, 0, 1, 2), d(s.output, s.m, s.n, 0, 1, 4);
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatmulPreference_t pref = nullptr;
    cublasLtMatmulHeuristicResult_t results[4];
    int count = 0;
    const float one = 1, zero = 0;
    OK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    OK(cublasLtMatmulPreferenceCreate(&pref));
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, int32_t value) { return cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value); };
    const auto ask = [&] { return cublasLtMatmulAlgoGetHeuristic(handle, desc, a.layout, b.layout, d.layout, d.layout, pref, 4, results, &count); };
    const auto run = [&](const cublasLtMatmulAlgo_t* algo, void* workspace, size_t bytes, void* out) {
        return cublasLtMatmul(handle, desc, &one, a.pointer(), a.layout, b.pointer(), b.layout, &zero, out, d.layout, out, d.layout, algo, workspace, bytes, nullptr);
    };
    EXPECT(ask(), CUBLAS_STATUS_INVALID_VALUE);  // not transposed, the inner sizes differ
    EXPECT(set(CUBLASLT_MATMUL_DESC_TRANSA, 7), 0);
    EXPECT(ask(), CUBLAS_STATUS_INVALID_VALUE);
    OK(set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T));
    OK(ask());
    EXPECT(count, 1);  // without a workspace
    EXPECT(results[0].workspaceSize, 0);

    // Sizes of attributes.
    const int64_t wide = 0;
    EXPECT(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &wide, sizeof wide), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &wide, 4), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT(cublasLtMatmulDescSetAttribute(desc, cublasLtMatmulDescAttributes_t(9), &wide, 4), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &wide, 4), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT(cublasLtMatmulDescSetAttribute(nullptr, CUBLASLT_MATMUL_DESC_TRANSA, &wide, 4), CUBLAS_STATUS_INVALID_VALUE);

    // The workspace: asked for within the preference, refused when it is not given.
    const uint64_t limit = 64 * 32 * 4;
    OK(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &limit, sizeof limit));
    OK(ask());
    EXPECT(count, 2);
    EXPECT(results[0].workspaceSize, limit);
    EXPECT(run(&results[0].algo, nullptr, 0, d.pointer()), CUBLAS_STATUS_INVALID_VALUE);
    const CUdeviceptr workspace = allocate(limit);
    EXPECT(run(&results[0].algo, reinterpret_cast<void*>(uintptr_t(workspace)), limit - 1, d.pointer()), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT(run(&results[0].algo, reinterpret_cast<void*>(uintptr_t(workspace) + 8), limit, d.pointer()), CUBLAS_STATUS_INVALID_VALUE);
    OK(run(&results[0].algo, reinterpret_cast<void*>(uintptr_t(workspace)), limit, d.pointer()));
    OK(run(&results[1].algo, nullptr, 0, d.pointer()));
    cublasLtMatmulAlgo_t empty = {};
    EXPECT(run(&empty, nullptr, 0, d.pointer()), CUBLAS_STATUS_INVALID_VALUE);

    // Alignment that the preference promised, types, epilogues, pointers.
    EXPECT(run(&results[1].algo, nullptr, 0, reinterpret_cast<void*>(uintptr_t(d.address) + 16)), CUBLAS_STATUS_NOT_SUPPORTED);
    EXPECT(run(nullptr, nullptr, 0, nullptr), CUBLAS_STATUS_INVALID_VALUE);
    OK(set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_RELU));
    EXPECT(run(&results[1].algo, nullptr, 0, d.pointer()), CUBLAS_STATUS_NOT_SUPPORTED);  // the algorithm is for another epilogue
    OK(set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_GELU_BIAS));
    EXPECT(run(nullptr, nullptr, 0, d.pointer()), CUBLAS_STATUS_INVALID_VALUE);  // no bias pointer
    OK(set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F));
    EXPECT(ask(), CUBLAS_STATUS_NOT_SUPPORTED);
    OK(set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, -1));
    OK(ask());
    OK(set(CUBLASLT_MATMUL_DESC_EPILOGUE, 3));
    EXPECT(ask(), CUBLAS_STATUS_NOT_SUPPORTED);
    OK(set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT));
    OK(set(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, CUBLAS_COMPUTE_16F));
    EXPECT(ask(), CUBLAS_STATUS_NOT_SUPPORTED);  // with fp32 scalars
    OK(set(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, CUBLAS_COMPUTE_32F_FAST_TF32));
    EXPECT(ask(), CUBLAS_STATUS_NOT_SUPPORTED);  // of fp16 operands
    OK(set(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, CUBLAS_COMPUTE_32F));

    // Layouts that describe nothing.
    const auto layout = [&](cublasLtMatrixLayoutAttribute_t attribute, int64_t value) { return cublasLtMatrixLayoutSetAttribute(b.layout, attribute, &value, 8); };
    for (const int64_t leading : {int64_t(47), int64_t(0), int64_t(-1), INT64_MAX, INT64_MIN}) {
        OK(layout(CUBLASLT_MATRIX_LAYOUT_LD, leading));
        EXPECT(ask(), CUBLAS_STATUS_INVALID_VALUE);
        EXPECT(run(nullptr, nullptr, 0, d.pointer()), CUBLAS_STATUS_INVALID_VALUE);
    }
    OK(layout(CUBLASLT_MATRIX_LAYOUT_LD, 48));
    for (const int64_t rows : {int64_t(0), int64_t(-1), int64_t(49)}) {
        OK(layout(CUBLASLT_MATRIX_LAYOUT_ROWS, rows));
        EXPECT(ask(), CUBLAS_STATUS_INVALID_VALUE);
    }
    OK(layout(CUBLASLT_MATRIX_LAYOUT_ROWS, 48));
    OK(ask());
    EXPECT(cublasLtMatmulAlgoGetHeuristic(nullptr, desc, a.layout, b.layout, d.layout, d.layout, pref, 4, results, &count), CUBLAS_STATUS_NOT_INITIALIZED);
    EXPECT(cublasLtMatmulAlgoGetHeuristic(handle, desc, nullptr, b.layout, d.layout, d.layout, pref, 4, results, &count), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT(cublasLtMatmulAlgoGetHeuristic(handle, desc, a.layout, b.layout, d.layout, d.layout, pref, 0, results, &count), CUBLAS_STATUS_INVALID_VALUE);
    OK(cuCtxSynchronize());

    // A matrix that is larger than its memory: found when it runs.
    const int64_t leading = 4096;
    OK(layout(CUBLASLT_MATRIX_LAYOUT_LD, leading));
    OK(run(nullptr, nullptr, 0, d.pointer()));
    EXPECT(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    EXPECT_TRUE(reported("not (all) inside live memory"));
    OK(cublasLtMatmulPreferenceDestroy(pref));
    EXPECT(cublasLtMatmulPreferenceDestroy(pref), CUBLAS_STATUS_INVALID_VALUE);
    OK(cublasLtMatmulDescDestroy(desc));
    emuReset();  // the helpers below free memory of a context that is in error
    CUcontext context = nullptr;
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    a.address = b.address = d.address = 0;
}

static void measure(cublasLtHandle_t handle, int64_t m, int64_t n, int64_t k, cudaDataType type) {
    Held a(type, k, m, 0, 1, 1), b(type, k, n, 0, 1, 2), d(type, m, n, 0, 1, 3);
    cublasLtMatmulDesc_t desc = nullptr;
    const float one = 1, zero = 0;
    const int32_t transpose = CUBLAS_OP_T;
    OK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    OK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose));
    const auto start = std::chrono::steady_clock::now();
    OK(cublasLtMatmul(handle, desc, &one, a.pointer(), a.layout, b.pointer(), b.layout, &zero, d.pointer(), d.layout, d.pointer(), d.layout, nullptr, nullptr, 0, nullptr));
    OK(cuCtxSynchronize());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("  product %lld x %lld x %lld: %.2f ms, %.1f GFLOP/s\n", static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(k), seconds * 1e3,
                2e-9 * double(m) * double(n) * double(k) / seconds);
    OK(cublasLtMatmulDescDestroy(desc));
}

void test_cublaslt() {
    cublasLtHandle_t handle = nullptr;
    EXPECT(cublasLtCreate(nullptr), CUBLAS_STATUS_INVALID_VALUE);
    Device device;
    OK(cublasLtCreate(&handle));
    const cudaDataType f = CUDA_R_32F, h = CUDA_R_16F, b = CUDA_R_16BF;
    const Sides cases[] = {
        {64, 64, 64, f, f, true, false, CUBLASLT_EPILOGUE_DEFAULT, 1, 0, 0, 1},
        {33, 13, 17, f, f, false, false, CUBLASLT_EPILOGUE_BIAS, 0.5f, 2, 3, 1},
        {100, 7, 65, h, h, true, false, CUBLASLT_EPILOGUE_GELU_BIAS, 1, 1, 5, 1},
        {31, 25, 40, h, f, false, true, CUBLASLT_EPILOGUE_GELU, 1, 0, 0, 1},
        {70, 1, 129, b, b, true, true, CUBLASLT_EPILOGUE_RELU_BIAS, 2, 1, 1, 1},
        {1, 50, 3, b, f, true, false, CUBLASLT_EPILOGUE_RELU, -1, 0, 0, 1},
        {20, 14, 9, f, f, true, false, CUBLASLT_EPILOGUE_DEFAULT, 1, 1, 2, 3},
        {1, 1, 1, h, h, false, false, CUBLASLT_EPILOGUE_DEFAULT, 1, 0, 0, 1},
        {150, 8, 77, f, f, true, false, CUBLASLT_EPILOGUE_BIAS, 2, 1, 3, 2},
        {200, 300, 100, h, h, true, false, CUBLASLT_EPILOGUE_BIAS, 1, 1, 0, 1},
    };
    for (const Sides& s : cases) test_product(handle, s);
    measure(handle, 1024, 576, 1024, CUDA_R_16BF);
    measure(handle, 1024, 576, 1024, CUDA_R_32F);
    measure(handle, 4096, 4, 1024, CUDA_R_16F);
    test_refusals(handle);
    OK(cublasLtDestroy(handle));
    EXPECT(cublasLtDestroy(handle), CUBLAS_STATUS_NOT_INITIALIZED);
}
