#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "tensor/dtype.h"

namespace thimble {

// A read-only stored tensor: a weight as the file holds it. Row-major, outermost dimension first, as PyTorch
// writes shapes: a linear layer's weight is [out, in] (GGUF files list dimensions the other way round).
// Rows are contiguous; a row is a whole number of blocks. `owner` keeps the bytes alive (a mapped file, a buffer).
struct Tensor {
  DType type = DType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  std::shared_ptr<const void> owner;

  bool empty() const { return data == nullptr; }
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }  // elements in a row
  int64_t rows() const { return cols() == 0 ? 0 : elements() / cols(); }
  size_t row_bytes() const { return dtype_bytes(type, cols()); }
  size_t bytes() const { return static_cast<size_t>(rows()) * row_bytes(); }
  const std::byte* row(int64_t index) const { return data + static_cast<size_t>(index) * row_bytes(); }
};

// Values in memory, [rows, cols], that somebody else keeps.
inline Tensor f32_matrix(const float* values, int64_t rows, int64_t cols) {
  return {DType::kF32, {rows, cols}, reinterpret_cast<const std::byte*>(values), nullptr};
}

}  // namespace thimble
