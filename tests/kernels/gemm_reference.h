#pragma once

#include <algorithm>

#include "core/buffer.h"
#include "kernels/gemm.h"
#include "tensor/quantize.h"

// The products as they are defined, for the tests of the fast ones.
namespace thimble::plain {
inline constexpr int64_t kBlock = 64;
inline int64_t blocks(int64_t n) { return (n + kBlock - 1) / kBlock; }

inline void linear_forward(const GemmInput& x, const Tensor& w, float* y, bool accumulate) {
  const int64_t in = w.cols(), out = w.rows();
  for (int64_t block = 0; block < blocks(out); ++block) {
    const Buffer<float> row(static_cast<size_t>(in));
    for (int64_t o = block * kBlock; o < std::min(out, (block + 1) * kBlock); ++o) {
      dequantize_row(w.type, w.row(o), in, row.data());
      for (int64_t r = 0; r < x.rows; ++r) {
        const float* xr = x.values + r * in;
        float total = 0;
        for (int64_t i = 0; i < in; ++i) total += xr[i] * row[static_cast<size_t>(i)];
        y[r * out + o] = accumulate ? y[r * out + o] + total : total;
      }
    }
  }
}

inline void linear_backward_input(const GemmInput& dy, const Tensor& w, float* dx, bool accumulate) {
  const int64_t in = w.cols(), out = w.rows();
  for (int64_t block = 0; block < blocks(dy.rows); ++block) {
    const Buffer<float> row(static_cast<size_t>(in));
    const int64_t first = block * kBlock, last = std::min(dy.rows, first + kBlock);
    if (!accumulate) std::fill(dx + first * in, dx + last * in, 0.0f);
    for (int64_t o = 0; o < out; ++o) {
      dequantize_row(w.type, w.row(o), in, row.data());
      for (int64_t r = first; r < last; ++r) {
        const float d = dy.values[r * out + o];
        for (int64_t i = 0; i < in; ++i) dx[r * in + i] += d * row[static_cast<size_t>(i)];
      }
    }
  }
}

inline void linear_backward_weight(const GemmInput& dy, const GemmInput& x, float* dw, bool accumulate, float scale) {
  const int64_t in = x.cols, out = dy.cols;
  for (int64_t block = 0; block < blocks(out); ++block) {
    const Buffer<float> row(static_cast<size_t>(in));
    for (int64_t o = block * kBlock; o < std::min(out, (block + 1) * kBlock); ++o) {
      std::fill(row.begin(), row.end(), 0.0f);
      for (int64_t r = 0; r < x.rows; ++r) {
        const float d = dy.values[r * out + o];
        for (int64_t i = 0; i < in; ++i) row[static_cast<size_t>(i)] += d * x.values[r * in + i];
      }
      for (int64_t i = 0; i < in; ++i)
        dw[o * in + i] = (accumulate ? dw[o * in + i] : 0.0f) + scale * row[static_cast<size_t>(i)];
    }
  }
}

}  // namespace thimble::plain
