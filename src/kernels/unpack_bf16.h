#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace thimble {

// n stored elements (a whole number of blocks) rounded to bf16, nearest even.
void unpack_bf16(DType type, const std::byte* row, int64_t n, uint16_t* out);

// out[i] = bf16(x[i] · scale)
void round_bf16(const float* x, int64_t n, float scale, uint16_t* out);

// out[c, r] = bf16(x[r, c] · scale) for rows r of x [rows, cols]; out's rows lie `stride` apart.
void transpose_bf16(const float* x, int64_t rows, int64_t cols, float scale, uint16_t* out, int64_t stride);

}  // namespace thimble
