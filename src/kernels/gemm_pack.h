#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace thimble::gemm {

// The f32 packing that needs no instruction set; see gemm_kernels.h.
void pack_rows_f32(const Tensor& w, int64_t n, int cols, int64_t k, int64_t depth, int width, float* panel);
void pack_cols_f32(const Tensor& w, int64_t n, int64_t cols, int64_t k, int64_t depth, int width, float* panel,
                   int64_t panel_stride);

}  // namespace thimble::gemm
