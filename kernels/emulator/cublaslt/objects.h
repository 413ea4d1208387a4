// Descriptors as cuBLASLt holds them: attributes by number, set and read with their exact sizes.
#pragma once

#include "../abi/instruments.h"
#include "product.h"

#include <cstring>
#include <map>
#include <mutex>
#include <set>

// The bodies of the opaque types that callers hold pointers to.
struct EmuMatmulDesc {
    int32_t compute_type = CUBLAS_COMPUTE_32F, scale_type = CUDA_R_32F, pointer_mode = 0, trans_a = 0, trans_b = 0, trans_c = 0, fill_mode = 2;
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void* bias = nullptr;
    int64_t bias_batch_stride = 0;
    int32_t bias_type = -1;  // D's
    void* aux = nullptr;
    int64_t aux_leading = 0, aux_batch_stride = 0, alpha_batch_stride = 0;
    int32_t sm_count_target = 0, aux_type = -1;
    const void* scales[9] = {};
    int32_t scale_modes[6] = {};
    int8_t fast_accumulation = 0;
};

struct EmuMatrixLayout {
    uint32_t type = 0;
    int32_t order = CUBLASLT_ORDER_COL;
    uint64_t rows = 0, columns = 0;
    int64_t leading = 0;
    int32_t batch_count = 1;
    int64_t batch_stride = 0, plane_offset = 0;
    uint32_t batch_mode = 0;
};

struct EmuMatmulPreference {
    uint32_t search_mode = 0;
    uint64_t max_workspace = 0;
    uint32_t reduction_schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
    uint32_t alignment[4] = {256, 256, 256, 256};  // of A, B, C, D
    float max_waves = 0;
    uint64_t implementations = ~uint64_t(0);
};

struct cublasLtContext {
    int unused;
};

namespace emu {

// What a caller hands in is looked up, never trusted: a freed or foreign pointer is refused.
template <class T> class Live {
public:
    static T* find(T* object) {
        std::lock_guard<std::mutex> held(lock());
        return object != nullptr && set().count(object) != 0 ? object : nullptr;
    }
    static T* add() {
        T* object = new (std::nothrow) T();
        if (object == nullptr) return nullptr;
        std::lock_guard<std::mutex> held(lock());
        set().insert(object);
        return object;
    }
    static bool remove(T* object) {
        std::lock_guard<std::mutex> held(lock());
        if (set().erase(object) == 0) return false;
        delete object;
        return true;
    }

private:
    static std::mutex& lock() { static auto* const m = new std::mutex; return *m; }
    static std::set<T*>& set() { static auto* const s = new std::set<T*>; return *s; }
};

struct Attribute {
    void* place;
    size_t size;
};
Attribute attribute_of(EmuMatmulDesc&, int number);
Attribute attribute_of(EmuMatrixLayout&, int number);
Attribute attribute_of(EmuMatmulPreference&, int number);

// What one call asks for, once it has been found possible.
struct Plan {
    Product product;
    size_t workspace = 0;
    bool device_scalars = false, half_scalars = false;
};

// Descriptor and layouts against what the documentation of cublasLtMatmul allows.
cublasStatus_t check_problem(EmuMatmulDesc* desc, EmuMatrixLayout* a, EmuMatrixLayout* b, EmuMatrixLayout* c, EmuMatrixLayout* d, Plan& plan);

// An algorithm is bytes that the caller keeps: a mark, a number, what it was chosen for, its workspace, its alignments.
struct Algorithm {
    uint64_t mark, number, kind, workspace, alignment[4];
};
static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t), "an algorithm must fit");
constexpr uint64_t algorithm_mark = 0x454d55414c474f31ull;
uint64_t kind_of(const EmuMatmulDesc& desc, const Plan& plan);  // types, transposes and epilogue
// The workspace of each algorithm, largest first; the last needs none.
constexpr int algorithm_count = 3;
uint64_t workspace_of(const Plan& plan, int number);

}  // namespace emu
