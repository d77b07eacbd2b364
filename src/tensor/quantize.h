#pragma once

#include <cstddef>
#include <cstdint>

#include "core/buffer.h"
#include "tensor/tensor.h"

namespace thimble {

// n stored elements (a whole number of blocks) to f32, exactly as the type defines them.
void dequantize_row(DType type, const std::byte* row, int64_t n, float* out);

// A whole tensor, [rows * cols], on the program's threads.
Buffer<float> dequantize(const Tensor& tensor);

// n finite values (a whole number of blocks) to dtype_bytes(type, n) bytes, with the results of ggml's reference
// quantisation (quantize_row_*_ref in ggml-quants.c), which are llama.cpp's without an importance matrix. Values that
// are not finite give unspecified elements.
void quantize_row(DType type, const float* values, int64_t n, std::byte* out);

}  // namespace thimble
