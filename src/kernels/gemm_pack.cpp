#include "kernels/gemm_pack.h"

#include <algorithm>
#include <cstring>

#include "kernels/scratch.h"
#include "tensor/quantize.h"

namespace thimble::gemm {

void pack_rows_f32(const Tensor& w, int64_t n, int cols, int64_t k, int64_t depth, int width, float* panel) {
  const Scratch<float> rows(static_cast<size_t>(width * depth));
  for (int64_t j = 0; j < width; ++j) {
    float* row = rows.data() + j * depth;
    if (j < cols)
      dequantize_row(w.type, w.row(n + j) + dtype_bytes(w.type, k), depth, row);
    else
      std::fill(row, row + depth, 0.0f);
  }
  for (int64_t i = 0; i < depth; ++i)
    for (int64_t j = 0; j < width; ++j) panel[i * width + j] = rows.data()[j * depth + i];
}

void pack_cols_f32(const Tensor& w, int64_t n, int64_t cols, int64_t k, int64_t depth, int width, float* panel,
                   int64_t panel_stride) {
  const Scratch<float> unpacked(static_cast<size_t>(cols));
  for (int64_t row = 0; row < depth; ++row, panel += width) {
    dequantize_row(w.type, w.row(k + row) + dtype_bytes(w.type, n), cols, unpacked.data());
    float* to = panel;
    for (int64_t first = 0; first < cols; first += width, to += panel_stride) {
      const int64_t count = std::min<int64_t>(width, cols - first);
      std::memcpy(to, unpacked.data() + first, static_cast<size_t>(count) * sizeof(float));
      std::memset(to + count, 0, static_cast<size_t>(width - count) * sizeof(float));
    }
  }
}

}  // namespace thimble::gemm
