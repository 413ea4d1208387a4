// The reference product behind cublasLtMatmul: fp32 accumulation, blocked and vectorised, the columns of D shared among threads.
#pragma once

#include "../abi/cublaslt_abi.h"

namespace emu {

struct Matrix {
    cudaDataType type = CUDA_R_32F;
    bool row_major = false;
    int64_t rows = 0, columns = 0, leading = 0;
    int batches = 1;
    int64_t batch_stride = 0;  // elements
};

enum class Rounding { none, tf32, f16, bf16 };  // of fp32 operands, for the fast compute types

struct Product {
    Matrix a, b, c, d;
    bool transpose_a = false, transpose_b = false;
    Rounding rounding = Rounding::none;
    float alpha = 1, beta = 0;
    bool bias = false, relu = false, gelu = false;
    cudaDataType bias_type = CUDA_R_32F;
    int64_t bias_batch_stride = 0;
    const void *a_data = nullptr, *b_data = nullptr, *c_data = nullptr, *bias_data = nullptr;
    void* d_data = nullptr;
};

int element_size(cudaDataType type);  // 0 for a type that is not emulated
void multiply(const Product& product);

}  // namespace emu
