// The exported cuBLASLt functions.
#include "../driver/work.h"
#include "objects.h"

#include <algorithm>
#include <memory>

using namespace emu;

EMU_EXPORT_INSTRUMENTS

EMU_EXPORT size_t cublasLtGetVersion(void) { return 130000; }

EMU_EXPORT const char* cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
#define NAME(name) case name: return #name;
        NAME(CUBLAS_STATUS_SUCCESS) NAME(CUBLAS_STATUS_NOT_INITIALIZED) NAME(CUBLAS_STATUS_ALLOC_FAILED) NAME(CUBLAS_STATUS_INVALID_VALUE)
        NAME(CUBLAS_STATUS_ARCH_MISMATCH) NAME(CUBLAS_STATUS_MAPPING_ERROR) NAME(CUBLAS_STATUS_EXECUTION_FAILED) NAME(CUBLAS_STATUS_INTERNAL_ERROR)
        NAME(CUBLAS_STATUS_NOT_SUPPORTED) NAME(CUBLAS_STATUS_LICENSE_ERROR)
#undef NAME
    }
    return "CUBLAS_STATUS_UNKNOWN";
}
EMU_EXPORT const char* cublasLtGetStatusString(cublasStatus_t status) { return cublasLtGetStatusName(status); }

EMU_EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t* lightHandle) {
    if (lightHandle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    *lightHandle = nullptr;
    int devices = 0;
    if (cuDeviceGetCount(&devices) != CUDA_SUCCESS || devices == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
    int code = CUBLAS_STATUS_ALLOC_FAILED;
    if (Instruments::get().fails("handle", code)) return cublasStatus_t(code);
    *lightHandle = Live<cublasLtContext>::add();
    return CUBLAS_STATUS_SUCCESS;
}

EMU_EXPORT cublasStatus_t cublasLtDestroy(cublasLtHandle_t lightHandle) {
    return Live<cublasLtContext>::remove(lightHandle) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

// ---- descriptors -----------------------------------------------------------------------------------------------------------------

template <class T> static cublasStatus_t set_attribute(T* object, int attr, const void* buf, size_t size) {
    object = Live<T>::find(object);
    if (object == nullptr || buf == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    const Attribute attribute = attribute_of(*object, attr);
    if (attribute.place == nullptr || attribute.size != size) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(attribute.place, buf, size);
    return CUBLAS_STATUS_SUCCESS;
}

template <class T> static cublasStatus_t get_attribute(T* object, int attr, void* buf, size_t size, size_t* written) {
    object = Live<T>::find(object);
    if (object == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    const Attribute attribute = attribute_of(*object, attr);
    if (attribute.place == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (size == 0) {  // only the size is asked for
        if (written == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
        *written = attribute.size;
        return CUBLAS_STATUS_SUCCESS;
    }
    if (buf == nullptr || attribute.size != size) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(buf, attribute.place, size);
    if (written != nullptr) *written = size;
    return CUBLAS_STATUS_SUCCESS;
}

EMU_EXPORT cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* matmulDesc, cublasComputeType_t computeType, cudaDataType_t scaleType) {
    if (matmulDesc == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    *matmulDesc = Live<EmuMatmulDesc>::add();
    if (*matmulDesc == nullptr) return CUBLAS_STATUS_ALLOC_FAILED;
    (*matmulDesc)->compute_type = computeType;
    (*matmulDesc)->scale_type = scaleType;
    return CUBLAS_STATUS_SUCCESS;
}
EMU_EXPORT cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmulDesc) {
    return Live<EmuMatmulDesc>::remove(matmulDesc) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
EMU_EXPORT cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmulDesc, cublasLtMatmulDescAttributes_t attr, const void* buf, size_t sizeInBytes) {
    return set_attribute(matmulDesc, attr, buf, sizeInBytes);
}
EMU_EXPORT cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t matmulDesc, cublasLtMatmulDescAttributes_t attr, void* buf, size_t sizeInBytes,
                                                         size_t* sizeWritten) {
    return get_attribute(matmulDesc, attr, buf, sizeInBytes, sizeWritten);
}

EMU_EXPORT cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* matLayout, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld) {
    if (matLayout == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    *matLayout = Live<EmuMatrixLayout>::add();
    if (*matLayout == nullptr) return CUBLAS_STATUS_ALLOC_FAILED;
    (*matLayout)->type = type;
    (*matLayout)->rows = rows;
    (*matLayout)->columns = cols;
    (*matLayout)->leading = ld;
    return CUBLAS_STATUS_SUCCESS;
}
EMU_EXPORT cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matLayout) {
    return Live<EmuMatrixLayout>::remove(matLayout) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
EMU_EXPORT cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t matLayout, cublasLtMatrixLayoutAttribute_t attr, const void* buf,
                                                           size_t sizeInBytes) {
    return set_attribute(matLayout, attr, buf, sizeInBytes);
}
EMU_EXPORT cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t matLayout, cublasLtMatrixLayoutAttribute_t attr, void* buf, size_t sizeInBytes,
                                                           size_t* sizeWritten) {
    return get_attribute(matLayout, attr, buf, sizeInBytes, sizeWritten);
}

EMU_EXPORT cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* pref) {
    if (pref == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    *pref = Live<EmuMatmulPreference>::add();
    return *pref == nullptr ? CUBLAS_STATUS_ALLOC_FAILED : CUBLAS_STATUS_SUCCESS;
}
EMU_EXPORT cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref) {
    return Live<EmuMatmulPreference>::remove(pref) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
EMU_EXPORT cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref, cublasLtMatmulPreferenceAttributes_t attr, const void* buf,
                                                               size_t sizeInBytes) {
    return set_attribute(pref, attr, buf, sizeInBytes);
}

// ---- algorithms ------------------------------------------------------------------------------------------------------------------

static void describe(const EmuMatmulDesc& desc, const Plan& plan, int number, const uint32_t* alignment, cublasLtMatmulHeuristicResult_t& result) {
    Algorithm algorithm{algorithm_mark, uint64_t(number), kind_of(desc, plan), workspace_of(plan, number), {}};
    for (int i = 0; i < 4; ++i) algorithm.alignment[i] = alignment[i];
    result = {};
    std::memcpy(&result.algo, &algorithm, sizeof algorithm);
    result.workspaceSize = algorithm.workspace;
    result.state = CUBLAS_STATUS_SUCCESS;
    result.wavesCount = 1.0f;
}

EMU_EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc, cublasLtMatrixLayout_t Adesc,
                                                         cublasLtMatrixLayout_t Bdesc, cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc,
                                                         cublasLtMatmulPreference_t preference, int requestedAlgoCount,
                                                         cublasLtMatmulHeuristicResult_t heuristicResultsArray[], int* returnAlgoCount) {
    if (returnAlgoCount != nullptr) *returnAlgoCount = 0;
    if (Live<cublasLtContext>::find(lightHandle) == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    const EmuMatmulPreference* pref = Live<EmuMatmulPreference>::find(preference);
    if (pref == nullptr || requestedAlgoCount < 1 || heuristicResultsArray == nullptr || returnAlgoCount == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    for (const uint32_t alignment : pref->alignment)
        if (alignment == 0 || (alignment & (alignment - 1)) != 0) return CUBLAS_STATUS_INVALID_VALUE;
    Plan plan;
    if (const cublasStatus_t refused = check_problem(operationDesc, Adesc, Bdesc, Cdesc, Ddesc, plan)) return refused;
    Instruments::get().count("heuristic");
    const bool splits = (pref->reduction_schemes & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) != 0;
    for (int number = 0; number < algorithm_count && *returnAlgoCount < requestedAlgoCount; ++number) {
        const uint64_t workspace = workspace_of(plan, number);
        if (workspace > pref->max_workspace || (workspace > 0 && !splits)) continue;
        describe(*operationDesc, plan, number, pref->alignment, heuristicResultsArray[(*returnAlgoCount)++]);
    }
    return *returnAlgoCount > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static cublasStatus_t read_algorithm(const cublasLtMatmulAlgo_t* algo, const EmuMatmulDesc& desc, const Plan& plan, Algorithm& algorithm) {
    std::memcpy(&algorithm, algo, sizeof algorithm);
    if (algorithm.mark != algorithm_mark || algorithm.number >= algorithm_count) return CUBLAS_STATUS_INVALID_VALUE;
    if (algorithm.kind != kind_of(desc, plan)) return CUBLAS_STATUS_NOT_SUPPORTED;  // chosen for other types, transposes or epilogue
    algorithm.workspace = workspace_of(plan, int(algorithm.number));
    return CUBLAS_STATUS_SUCCESS;
}

EMU_EXPORT cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc, cublasLtMatrixLayout_t Adesc,
                                                  cublasLtMatrixLayout_t Bdesc, cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc,
                                                  const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
    if (Live<cublasLtContext>::find(lightHandle) == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (algo == nullptr || result == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    Plan plan;
    if (const cublasStatus_t refused = check_problem(operationDesc, Adesc, Bdesc, Cdesc, Ddesc, plan)) return refused;
    Algorithm algorithm;
    if (const cublasStatus_t refused = read_algorithm(algo, *operationDesc, plan, algorithm)) return refused;
    uint32_t alignment[4];
    for (int i = 0; i < 4; ++i) alignment[i] = uint32_t(algorithm.alignment[i]);
    describe(*operationDesc, plan, int(algorithm.number), alignment, *result);
    return CUBLAS_STATUS_SUCCESS;
}

EMU_EXPORT cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo, cublasLtMatmulAlgoConfigAttributes_t attr, void* buf,
                                                               size_t sizeInBytes, size_t* sizeWritten) {
    Algorithm algorithm;
    if (algo == nullptr || buf == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&algorithm, algo, sizeof algorithm);
    if (algorithm.mark != algorithm_mark || attr < CUBLASLT_ALGO_CONFIG_ID || attr > CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID) return CUBLAS_STATUS_INVALID_VALUE;
    const bool narrow = attr == CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID || attr == CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID;
    const uint32_t split = algorithm.number == 0 ? 4 : algorithm.number == 1 ? 2 : 1;
    const uint32_t value = attr == CUBLASLT_ALGO_CONFIG_ID                  ? uint32_t(algorithm.number)
                           : attr == CUBLASLT_ALGO_CONFIG_SPLITK_NUM        ? split
                           : attr == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME ? uint32_t(split > 1 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : 0)
                                                                            : 0;
    const size_t size = narrow ? 2 : 4;
    if (sizeInBytes != size) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(buf, &value, size);
    if (sizeWritten != nullptr) *sizeWritten = size;
    return CUBLAS_STATUS_SUCCESS;
}

// ---- the product -----------------------------------------------------------------------------------------------------------------

static void add_range(Work& work, const Matrix& m, const void* data, bool write) {
    const uintptr_t size = uintptr_t(element_size(m.type)), lines = uintptr_t(m.row_major ? m.rows : m.columns), length = uintptr_t(m.row_major ? m.columns : m.rows);
    for (int batch = 0; batch < m.batches; ++batch) {
        const uintptr_t begin = reinterpret_cast<uintptr_t>(data) + uintptr_t(int64_t(batch) * m.batch_stride) * size;
        work.ranges.push_back({begin, begin + ((lines - 1) * uintptr_t(m.leading) + length) * size, write});
        if (m.batch_stride == 0) break;
    }
}

static float read_scalar(const void* scalar, bool half) {
    if (!half) return *static_cast<const float*>(scalar);
    uint16_t h;
    std::memcpy(&h, scalar, 2);
    const int exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    const float magnitude = exponent == 31   ? (mantissa != 0 ? __builtin_nanf("") : __builtin_inff())
                            : exponent != 0 ? __builtin_ldexpf(float(mantissa | 0x400), exponent - 25)
                                            : __builtin_ldexpf(float(mantissa), -24);
    return (h & 0x8000) != 0 ? -magnitude : magnitude;
}

EMU_EXPORT cublasStatus_t cublasLtMatmul(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t computeDesc, const void* alpha, const void* A,
                                         cublasLtMatrixLayout_t Adesc, const void* B, cublasLtMatrixLayout_t Bdesc, const void* beta, const void* C,
                                         cublasLtMatrixLayout_t Cdesc, void* D, cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t* algo, void* workspace,
                                         size_t workspaceSizeInBytes, cudaStream_t stream) {
    if (Live<cublasLtContext>::find(lightHandle) == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (alpha == nullptr || beta == nullptr || A == nullptr || B == nullptr || D == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    Plan plan;
    if (const cublasStatus_t refused = check_problem(computeDesc, Adesc, Bdesc, Cdesc, Ddesc, plan)) return refused;
    Product& p = plan.product;
    const void* const pointers[4] = {A, B, C, D};
    const Matrix* const matrices[4] = {&p.a, &p.b, &p.c, &p.d};
    for (int i = 0; i < 4; ++i)
        if (reinterpret_cast<uintptr_t>(pointers[i]) % uintptr_t(element_size(matrices[i]->type)) != 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (p.bias && (p.bias_data == nullptr || reinterpret_cast<uintptr_t>(p.bias_data) % uintptr_t(element_size(p.bias_type)) != 0)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!plan.device_scalars) {
        p.alpha = read_scalar(alpha, plan.half_scalars);
        p.beta = read_scalar(beta, plan.half_scalars);
        if (p.beta != 0 && C == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    } else if (C == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (C == D && (p.c.leading != p.d.leading || p.c.batch_stride != p.d.batch_stride)) return CUBLAS_STATUS_INVALID_VALUE;  // in place: one layout
    if (reinterpret_cast<uintptr_t>(workspace) % 16 != 0) return CUBLAS_STATUS_INVALID_VALUE;
    uint64_t used = 0;
    if (algo != nullptr) {
        Algorithm algorithm;
        if (const cublasStatus_t refused = read_algorithm(algo, *computeDesc, plan, algorithm)) return refused;
        used = algorithm.workspace;
        if (used > workspaceSizeInBytes || (used > 0 && workspace == nullptr)) return CUBLAS_STATUS_INVALID_VALUE;
        for (int i = 0; i < 4; ++i)
            if (pointers[i] != nullptr && algorithm.alignment[i] != 0 && reinterpret_cast<uintptr_t>(pointers[i]) % algorithm.alignment[i] != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    int code = CUBLAS_STATUS_EXECUTION_FAILED;
    if (Instruments::get().fails("matmul", code)) return cublasStatus_t(code);
    Instruments::get().count("matmul");

    p.a_data = A;
    p.b_data = B;
    p.c_data = C;
    p.d_data = D;
    Work work;
    work.kind = Work::Kind::kernel;
    work.name = "matmul " + std::to_string(p.d.rows) + " x " + std::to_string(p.d.columns) + " x " + std::to_string(p.transpose_a ? p.a.rows : p.a.columns);
    add_range(work, p.d, D, true);
    const Range written = work.ranges.front();
    add_range(work, p.a, A, false);
    add_range(work, p.b, B, false);
    bool overlapping = false;
    for (const Range& range : work.ranges)
        if (!range.write && range.begin < written.end && written.begin < range.end) overlapping = true;
    if (C != nullptr && (p.beta != 0 || plan.device_scalars)) add_range(work, p.c, C, false);
    if (p.bias) {
        const uintptr_t begin = reinterpret_cast<uintptr_t>(p.bias_data);
        const uintptr_t batches = uintptr_t(p.d.batches - 1) * uintptr_t(std::max<int64_t>(p.bias_batch_stride, 0));
        work.ranges.push_back({begin, begin + (uintptr_t(p.d.rows) + batches) * uintptr_t(element_size(p.bias_type)), false});
    }
    if (used > 0) {
        const uintptr_t begin = reinterpret_cast<uintptr_t>(workspace);
        work.ranges.push_back({begin, begin + used, true});
    }
    if (plan.device_scalars)
        for (const void* scalar : {alpha, beta}) work.ranges.push_back({reinterpret_cast<uintptr_t>(scalar), reinterpret_cast<uintptr_t>(scalar) + (plan.half_scalars ? 2u : 4u), false});
    const std::string name = work.name;
    work.run = [=](std::string& text) {
        if (overlapping) {
            text = name + ": the result lies over an operand";
            return CUDA_ERROR_LAUNCH_FAILED;
        }
        Product product = plan.product;
        if (plan.device_scalars) {
            product.alpha = read_scalar(alpha, plan.half_scalars);
            product.beta = read_scalar(beta, plan.half_scalars);
        }
        if (used > 0) std::memset(workspace, 0xFF, used);  // what was kept there is lost, as it would be
        multiply(product);
        return CUDA_SUCCESS;
    };
    switch (submit_external(stream, std::move(work))) {
        case CUDA_SUCCESS: return CUBLAS_STATUS_SUCCESS;
        case CUDA_ERROR_NOT_INITIALIZED:
        case CUDA_ERROR_INVALID_CONTEXT:
        case CUDA_ERROR_CONTEXT_IS_DESTROYED: return CUBLAS_STATUS_NOT_INITIALIZED;
        default: return CUBLAS_STATUS_EXECUTION_FAILED;
    }
}
