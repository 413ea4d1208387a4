// Attributes by number, and which problems exist.
#include "objects.h"

namespace emu {

Attribute attribute_of(EmuMatmulDesc& d, int number) {
    switch (number) {
#define HELD(name, member) case CUBLASLT_MATMUL_DESC_##name: return {&d.member, sizeof d.member};
        HELD(COMPUTE_TYPE, compute_type) HELD(SCALE_TYPE, scale_type) HELD(POINTER_MODE, pointer_mode) HELD(TRANSA, trans_a) HELD(TRANSB, trans_b)
        HELD(TRANSC, trans_c) HELD(FILL_MODE, fill_mode) HELD(EPILOGUE, epilogue) HELD(BIAS_POINTER, bias) HELD(BIAS_BATCH_STRIDE, bias_batch_stride)
        HELD(EPILOGUE_AUX_POINTER, aux) HELD(EPILOGUE_AUX_LD, aux_leading) HELD(EPILOGUE_AUX_BATCH_STRIDE, aux_batch_stride)
        HELD(ALPHA_VECTOR_BATCH_STRIDE, alpha_batch_stride) HELD(SM_COUNT_TARGET, sm_count_target) HELD(A_SCALE_POINTER, scales[0])
        HELD(B_SCALE_POINTER, scales[1]) HELD(C_SCALE_POINTER, scales[2]) HELD(D_SCALE_POINTER, scales[3]) HELD(AMAX_D_POINTER, scales[4])
        HELD(EPILOGUE_AUX_DATA_TYPE, aux_type) HELD(EPILOGUE_AUX_SCALE_POINTER, scales[5]) HELD(EPILOGUE_AUX_AMAX_POINTER, scales[6])
        HELD(FAST_ACCUM, fast_accumulation) HELD(BIAS_DATA_TYPE, bias_type) HELD(A_SCALE_MODE, scale_modes[0]) HELD(B_SCALE_MODE, scale_modes[1])
        HELD(C_SCALE_MODE, scale_modes[2]) HELD(D_SCALE_MODE, scale_modes[3]) HELD(EPILOGUE_AUX_SCALE_MODE, scale_modes[4])
        HELD(D_OUT_SCALE_POINTER, scales[7]) HELD(D_OUT_SCALE_MODE, scale_modes[5]) HELD(EMULATION_DESCRIPTOR, scales[8])
#undef HELD
        default: return {nullptr, 0};
    }
}

Attribute attribute_of(EmuMatrixLayout& l, int number) {
    switch (number) {
#define HELD(name, member) case CUBLASLT_MATRIX_LAYOUT_##name: return {&l.member, sizeof l.member};
        HELD(TYPE, type) HELD(ORDER, order) HELD(ROWS, rows) HELD(COLS, columns) HELD(LD, leading) HELD(BATCH_COUNT, batch_count)
        HELD(STRIDED_BATCH_OFFSET, batch_stride) HELD(PLANE_OFFSET, plane_offset) HELD(BATCH_MODE, batch_mode)
#undef HELD
        default: return {nullptr, 0};
    }
}

Attribute attribute_of(EmuMatmulPreference& p, int number) {
    switch (number) {
#define HELD(name, member) case CUBLASLT_MATMUL_PREF_##name: return {&p.member, sizeof p.member};
        HELD(SEARCH_MODE, search_mode) HELD(MAX_WORKSPACE_BYTES, max_workspace) HELD(REDUCTION_SCHEME_MASK, reduction_schemes)
        HELD(MIN_ALIGNMENT_A_BYTES, alignment[0]) HELD(MIN_ALIGNMENT_B_BYTES, alignment[1]) HELD(MIN_ALIGNMENT_C_BYTES, alignment[2])
        HELD(MIN_ALIGNMENT_D_BYTES, alignment[3]) HELD(MAX_WAVES_COUNT, max_waves) HELD(IMPL_MASK, implementations)
#undef HELD
        default: return {nullptr, 0};
    }
}

// A layout that describes memory: sizes above zero, lines that do not overlap, an extent that can exist.
static bool read_layout(const EmuMatrixLayout& l, Matrix& m) {
    m.type = cudaDataType(l.type);
    m.row_major = l.order == CUBLASLT_ORDER_ROW;
    if (l.rows == 0 || l.columns == 0 || l.rows > INT32_MAX || l.columns > INT32_MAX || l.batch_count < 1) return false;
    m.rows = int64_t(l.rows);
    m.columns = int64_t(l.columns);
    m.leading = l.leading;
    m.batches = l.batch_count;
    m.batch_stride = l.batch_count > 1 ? l.batch_stride : 0;
    if (l.leading < (m.row_major ? m.columns : m.rows)) return false;
    const __int128 lines = m.row_major ? m.rows : m.columns;
    const __int128 extent = lines * l.leading + static_cast<__int128>(l.batch_count) * (l.batch_stride < 0 ? -l.batch_stride : l.batch_stride);
    return extent < (static_cast<__int128>(1) << 45);
}

static bool is_one_of(int value, std::initializer_list<int> list) {
    for (const int entry : list)
        if (entry == value) return true;
    return false;
}

// The table of types of cublasLtMatmul's documentation, without the integer, complex, fp64 and fp8 rows, which are not emulated.
static bool types_exist(const EmuMatmulDesc& d, const Plan& plan) {
    const int ab = plan.product.a.type, cd = plan.product.d.type;
    if (plan.product.b.type != ab || plan.product.c.type != cd) return false;
    switch (d.compute_type) {
        case CUBLAS_COMPUTE_16F:
        case CUBLAS_COMPUTE_16F_PEDANTIC: return d.scale_type == CUDA_R_16F && ab == CUDA_R_16F && cd == CUDA_R_16F;
        case CUBLAS_COMPUTE_32F:
        case CUBLAS_COMPUTE_32F_PEDANTIC:
            if (d.scale_type != CUDA_R_32F) return false;
            return ab == CUDA_R_32F ? cd == CUDA_R_32F : is_one_of(ab, {CUDA_R_16F, CUDA_R_16BF}) && (cd == ab || cd == CUDA_R_32F);
        case CUBLAS_COMPUTE_32F_FAST_16F:
        case CUBLAS_COMPUTE_32F_FAST_16BF:
        case CUBLAS_COMPUTE_32F_FAST_TF32: return d.scale_type == CUDA_R_32F && ab == CUDA_R_32F && cd == CUDA_R_32F;
        default: return false;
    }
}

cublasStatus_t check_problem(EmuMatmulDesc* desc, EmuMatrixLayout* a, EmuMatrixLayout* b, EmuMatrixLayout* c, EmuMatrixLayout* d, Plan& plan) {
    desc = Live<EmuMatmulDesc>::find(desc);
    if (desc == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    EmuMatrixLayout* const layouts[4] = {a, b, c, d};
    Product& p = plan.product;
    Matrix* const matrices[4] = {&p.a, &p.b, &p.c, &p.d};
    for (int i = 0; i < 4; ++i) {
        const EmuMatrixLayout* layout = Live<EmuMatrixLayout>::find(layouts[i]);
        if (layout == nullptr || !read_layout(*layout, *matrices[i])) return CUBLAS_STATUS_INVALID_VALUE;
        if (layout->order != CUBLASLT_ORDER_COL && layout->order != CUBLASLT_ORDER_ROW) return CUBLAS_STATUS_NOT_SUPPORTED;
        if (layout->plane_offset != 0 || layout->batch_mode != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (!is_one_of(desc->trans_a, {CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C}) || !is_one_of(desc->trans_b, {CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_OP_C})) return CUBLAS_STATUS_INVALID_VALUE;
    if (desc->trans_c != CUBLAS_OP_N) return CUBLAS_STATUS_NOT_SUPPORTED;  // documented: only this one
    p.transpose_a = desc->trans_a != CUBLAS_OP_N;
    p.transpose_b = desc->trans_b != CUBLAS_OP_N;
    const int64_t m = p.transpose_a ? p.a.columns : p.a.rows, k = p.transpose_a ? p.a.rows : p.a.columns;
    const int64_t k2 = p.transpose_b ? p.b.columns : p.b.rows, n = p.transpose_b ? p.b.rows : p.b.columns;
    if (k != k2 || p.d.rows != m || p.d.columns != n || p.c.rows != m || p.c.columns != n) return CUBLAS_STATUS_INVALID_VALUE;
    for (const Matrix* matrix : matrices)
        if (matrix->batches != p.d.batches) return CUBLAS_STATUS_INVALID_VALUE;
    if (p.d.batches > 1 && p.d.batch_stride == 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (p.c.row_major != p.d.row_major) return CUBLAS_STATUS_NOT_SUPPORTED;

    if (!types_exist(*desc, plan)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (desc->pointer_mode != CUBLASLT_POINTER_MODE_HOST && desc->pointer_mode != CUBLASLT_POINTER_MODE_DEVICE) return CUBLAS_STATUS_NOT_SUPPORTED;
    plan.device_scalars = desc->pointer_mode == CUBLASLT_POINTER_MODE_DEVICE;
    plan.half_scalars = desc->scale_type == CUDA_R_16F;
    p.rounding = desc->compute_type == CUBLAS_COMPUTE_32F_FAST_TF32   ? Rounding::tf32
                 : desc->compute_type == CUBLAS_COMPUTE_32F_FAST_16F  ? Rounding::f16
                 : desc->compute_type == CUBLAS_COMPUTE_32F_FAST_16BF ? Rounding::bf16
                                                                      : Rounding::none;
    switch (desc->epilogue) {
        case CUBLASLT_EPILOGUE_DEFAULT: break;
        case CUBLASLT_EPILOGUE_RELU: p.relu = true; break;
        case CUBLASLT_EPILOGUE_BIAS: p.bias = true; break;
        case CUBLASLT_EPILOGUE_RELU_BIAS: p.relu = p.bias = true; break;
        case CUBLASLT_EPILOGUE_GELU: p.gelu = true; break;
        case CUBLASLT_EPILOGUE_GELU_BIAS: p.gelu = p.bias = true; break;
        default: return CUBLAS_STATUS_NOT_SUPPORTED;  // those with an auxiliary output or for training, and what does not exist
    }
    if (desc->epilogue != CUBLASLT_EPILOGUE_DEFAULT && p.d.row_major) return CUBLAS_STATUS_NOT_SUPPORTED;
    // A bias has D's type.
    p.bias_type = desc->bias_type < 0 ? p.d.type : cudaDataType(desc->bias_type);
    if (p.bias && p.bias_type != p.d.type) return CUBLAS_STATUS_NOT_SUPPORTED;
    p.bias_data = desc->bias;
    p.bias_batch_stride = p.d.batches > 1 ? desc->bias_batch_stride : 0;
    for (const void* scale : desc->scales)
        if (scale != nullptr) return CUBLAS_STATUS_NOT_SUPPORTED;  // scales are for narrow types
    return CUBLAS_STATUS_SUCCESS;
}

uint64_t kind_of(const EmuMatmulDesc& desc, const Plan& plan) {
    const Product& p = plan.product;
    uint64_t kind = 17;
    for (const int part : {int(p.a.type), int(p.d.type), int(p.transpose_a), int(p.transpose_b), int(desc.epilogue), int(desc.compute_type), int(p.a.row_major),
                           int(p.b.row_major), int(p.d.row_major), int(plan.device_scalars)})
        kind = kind * 1009 + uint64_t(part);
    return kind;
}

uint64_t workspace_of(const Plan& plan, int number) {
    const uint64_t sums = uint64_t(plan.product.d.rows) * uint64_t(plan.product.d.columns) * uint64_t(plan.product.d.batches) * 4;  // of one split of k
    return number == 0 ? 4 * sums : number == 1 ? sums : 0;
}

}  // namespace emu
